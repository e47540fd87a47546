"""Time every decoder against transformers' own greedy ``generate`` for the same batch of prompts.

    python workflow_tests/benchmarks/decoding_speed.py BASE [--tokens FILE] [--batch 8] [--prompt 32] [--new 48]

All decoders and ``generate`` run in turn in one process, so that load on the machine meets all of them; reported are
medians after a warm-up and medians of the paired ratios. No text ends early. A decoder that runs more rows than one per
new token (beams, look-ahead, a second model) is compared per row of a forward pass as well; a second model is the same
one, so its rows cost the same. DoLa reads seven early blocks through the output embedding, which no row counts: so the
operations of all matrix products, counted by torch, are given as the work a token, and the ratio per work too. On a
machine that others use too, ``--clock processor --threads 1`` counts what the process itself computes instead of the
time on the wall.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from hemorrhage import plugins
from hemorrhage.architecture import models
from hemorrhage.corpus.prompts import Prompt
from hemorrhage.corpus.tokens import TokenSet
from hemorrhage.decoding import generation

SETTINGS = {
    "contrastive_decoding": {"weak": "other"},
    "speculative": {"draft": "other"},
}
LIBRARY = "transformers"
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


class Counted:
    """How many rows the forward passes of a model have had."""

    def __init__(self, model):
        self.rows = 0
        model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, _module, args, options):
        ids = options["input_ids"] if "input_ids" in options else args[0]
        self.rows += len(ids)

    def during(self, action, clock):
        """Return the rows of one action and its seconds."""
        self.rows, start = 0, clock()
        action()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return self.rows, clock() - start


def prompts_of(arguments, vocabulary):
    """Return the prompts: starts of the windows of a token set, or random tokens."""
    if arguments.tokens:
        rows = torch.as_tensor(TokenSet.load(arguments.tokens).tokens[: arguments.batch, : arguments.prompt]).long()
    else:
        shape = (arguments.batch, arguments.prompt)
        rows = torch.randint(4, vocabulary, shape, generator=torch.Generator().manual_seed(0))
    return rows, [Prompt(i, tuple(row), "") for i, row in enumerate(rows.tolist())]


def work(action):
    """Return how many floating-point operations the matrix products of one action have."""
    with FlopCounterMode(display=False) as counter:
        action()
    return counter.get_total_flops()


@torch.inference_mode()
def library(model, ids, new):
    """Transformers' greedy search."""
    model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=new,
        min_new_tokens=new,
        pad_token_id=0,
    )


def measure(arguments):
    """Print a table row per decoder: tokens per second, ratio to ``generate``; rows, work."""
    torch.set_num_threads(arguments.threads)
    model = models.load(arguments.base, arguments.dtype, "cuda" if torch.cuda.is_available() else "cpu")
    model.generation_config.eos_token_id = None
    ids, prompts = prompts_of(arguments, model.config.get_text_config().vocab_size)
    ids, counted = ids.to(model.device), Counted(model)
    names = arguments.decoders or sorted(plugins.found("decoders"))

    def ours(name):
        options = {"seeds": [1], "limit": arguments.new, "batch": arguments.batch, "others": {"other": model}}
        return lambda: generation.continue_prompts(model, prompts, name, SETTINGS.get(name, {}), **options)

    clock = CLOCKS[arguments.clock]
    actions = {LIBRARY: lambda: library(model, ids, arguments.new)} | {name: ours(name) for name in names}
    rows = {name: counted.during(action, clock)[0] for name, action in actions.items()}
    operations = {name: work(action) for name, action in actions.items()}
    times = {name: [] for name in actions}
    for _ in range(arguments.repeats):
        for name, action in actions.items():
            times[name].append(counted.during(action, clock)[1])
    made = arguments.batch * arguments.new
    print("| decoder | tokens/s | ratio | rows a token | ratio per row | work a token | ratio per work |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, seconds in times.items():
        ratio = statistics.median(a / b for a, b in zip(times[LIBRARY], seconds, strict=True))
        more, heavier = rows[name] / rows[LIBRARY], operations[name] / operations[LIBRARY]
        speed = made / statistics.median(seconds)
        cells = [f"{speed:.1f}", *(f"{x:.2f}" for x in (ratio, more, ratio * more, heavier, ratio * heavier))]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main():
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", help="a dense checkpoint folder")
    defaults = (("batch", 8), ("prompt", 32), ("new", 48), ("repeats", 5), ("threads", 2))
    for name, default in defaults:
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--tokens", help="a token set (.npz) whose windows the prompts start; random tokens without")
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall")
    parser.add_argument("--decoders", nargs="*", help="all by default")
    measure(parser.parse_args())


if __name__ == "__main__":
    main()
