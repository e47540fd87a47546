"""Decoders by their definitions, one prompt at a time, no cache, plain Python: what the fast ones must equal."""

import math

import torch

from hemorrhage.architecture.head import Head
from hemorrhage.decoding import generation, noise


@torch.no_grad()
def logits_of(model, ids):
    return model(torch.tensor([ids], device=model.device), use_cache=False).logits[0, -1].float().cpu()


@torch.no_grad()
def states(model, ids):
    """The inputs of the output embedding at every place, [T, d], normalised."""
    kept = []
    hook = model.get_output_embeddings().register_forward_pre_hook(lambda _, args: kept.append(args[0]))
    model(torch.tensor([ids], device=model.device), use_cache=False)
    hook.remove()
    return torch.nn.functional.normalize(kept[0][0].float().cpu(), dim=-1)


def walk(model, prompt, limit, choose):
    ids, new = list(prompt.tokens), []
    while len(new) < limit and (not new or new[-1] not in generation.end_tokens(model)):
        new.append(int(choose(ids + new, new)))
    return new


def drawn(scores, prompt, seed, step):
    return int((scores + torch.from_numpy(noise.gumbel([(seed, prompt.id)], step, len(scores))[0])).argmax())


def only(logits, kept):
    return torch.tensor([logits[i] if i in kept else -math.inf for i in range(len(logits))])


def top_p(logits, p):
    shares, kept, mass = logits.softmax(-1), set(), 0.0
    for token in sorted(range(len(logits)), key=lambda i: -float(shares[i])):
        if kept and mass >= p:
            break
        kept.add(token)
        mass += float(shares[token])
    return only(logits, kept)


def typical(logits, share):
    shares = logits.double().softmax(-1)
    entropy = -sum(float(x) * math.log(float(x)) for x in shares if x > 0)
    kept, mass = set(), 0.0
    for token in sorted(range(len(logits)), key=lambda i: abs(-math.log(max(float(shares[i]), 1e-300)) - entropy)):
        if kept and mass >= share:
            break
        kept.add(token)
        mass += float(shares[token])
    return only(logits, kept)


def eta(logits, epsilon):
    shares = logits.double().softmax(-1)
    entropy = -sum(float(x) * math.log(float(x)) for x in shares if x > 0)
    cutoff = min(epsilon, math.sqrt(epsilon) * math.exp(-entropy))
    return only(logits, {i for i, x in enumerate(shares) if x >= cutoff} | {int(shares.argmax())})


def min_p(logits, share):
    shares = logits.double().softmax(-1)
    return only(logits, {i for i, x in enumerate(shares) if x >= share * shares.max()})


def top_k(logits, k):
    return only(logits, set(sorted(range(len(logits)), key=lambda i: -float(logits[i]))[:k]))


def candidates(logits, k):
    shares = logits.softmax(-1)
    return [(i, float(shares[i])) for i in sorted(range(len(shares)), key=lambda i: -float(shares[i]))[:k]]


def contrastive(model, ids, alpha, k):
    """Contrastive search, Su et al. 2022, equation 5."""
    best = []
    for token, share in candidates(logits_of(model, ids), k):
        hidden = states(model, [*ids, token])
        best.append(((1 - alpha) * share - alpha * float((hidden[:-1] @ hidden[-1]).max()), token))
    return max(best, key=lambda entry: entry[0])[1]


def fsd(model, ids, alpha, k):
    """FSD with n = 2: a token's penalty is the likeness of its contexts to the present one."""
    hidden = states(model, ids)
    best = []
    for token, share in candidates(logits_of(model, ids), k):
        alike = [float(hidden[j - 1] @ hidden[-1]) for j in range(1, len(ids)) if ids[j] == token]
        best.append(((1 - alpha) * share - alpha * min(max([0.0, *alike]), 1.0), token))
    return max(best, key=lambda entry: entry[0])[1]


def fsd_d(model, ids, alpha, k, n, beta):
    best = []
    for token, share in candidates(logits_of(model, ids), k):
        left, penalty = 1.0, 0.0
        for order in range(n - 1, -1, -1):
            context = tuple(ids[-order:]) if order else ()
            after = [ids[i] for i in range(order, len(ids)) if tuple(ids[i - order : i]) == context]
            if token in after:
                penalty += left * (
                    beta * after.count(token) / (len(after) + 1) if order else after.count(token) / len(after)
                )
                left -= left * beta
        best.append(((1 - alpha) * share - alpha * penalty, token))
    return max(best, key=lambda entry: entry[0])[1]


def contrastive_decoding(model, weak, ids, alpha, beta):
    strong, other = logits_of(model, ids), logits_of(weak, ids)
    shares = strong.softmax(-1)
    kept = [i for i in range(len(shares)) if shares[i] >= alpha * shares.max()]
    return max(kept, key=lambda i: float((1 + beta) * strong[i] - beta * other[i]))


@torch.no_grad()
def dola(model, ids, exits, relative_top, penalty):
    """For Llama: the early block is read through ``model.model.norm``."""
    output = model(torch.tensor([ids]), use_cache=False, output_hidden_states=True)
    final = output.logits[0, -1].float().log_softmax(-1)
    early = [Head.of(model)(model.model.norm(output.hidden_states[i][0, -1])).log_softmax(-1) for i in exits]

    def divergence(a, b):
        middle = (a.exp() + b.exp()) / 2
        return sum(0.5 * float((x.exp() * (x - middle.log())).sum()) for x in (a, b))

    base = max(early, key=lambda logs: divergence(final, logs))
    ratio = final - base
    for token in set(ids):
        ratio[token] = ratio[token] / penalty if ratio[token] > 0 else ratio[token] * penalty
    kept = [i for i in range(len(final)) if final[i] >= final.max() + math.log(relative_top)]
    return max(kept, key=lambda i: float(ratio[i]))


def diverse_beam(model, prompt, limit, beams, groups, penalty):
    """Groups of beams with sorted lists; a hypothesis is (score, tokens)."""
    ends, width = generation.end_tokens(model), beams // groups
    running = [[(0.0, [])] for _ in range(groups)]
    finished = [[] for _ in range(groups)]
    closed = [False] * groups
    for step in range(limit):
        chosen = []
        for g in range(groups):
            options = []
            for score, tokens in running[g]:
                logs = logits_of(model, [*prompt.tokens, *tokens]).log_softmax(-1)
                options += [
                    (score + float(logs[v]) - penalty * chosen.count(v), [*tokens, v]) for v in range(len(logs))
                ]
            options.sort(key=lambda entry: -entry[0])
            options = options[: max(2, 1 + len(ends)) * width]
            ended = [text[-1] in ends for _, text in options]
            if not closed[g]:
                finished[g] += [
                    (score / len(text), text)
                    for (score, text), end in zip(options[:width], ended, strict=False)
                    if end or step + 1 == limit
                ]
                finished[g] = sorted(finished[g], key=lambda entry: -entry[0])[:width]
            running[g] = [option for option, end in zip(options, ended, strict=True) if not end][:width]
            chosen += [text[-1] for _, text in running[g]]
            if len(finished[g]) == width and (not running[g] or running[g][0][0] / (step + 1) <= finished[g][-1][0]):
                closed[g] = True
        if all(closed):
            break
    return max((found[0] for found in finished if found), key=lambda entry: entry[0])[1]
