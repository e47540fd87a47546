"""Beam search over a batch, in one group or in diverse groups.

A hypothesis is scored by its log-probability over its length. A row is decided when the best running hypothesis, at
the length it has now, is no better than the worst of a full set of finished ones; until then candidates that end (or
reach the limit) join the finished ones if they are among the best ``width``. This is what transformers does with its
defaults (``length_penalty`` 1, ``early_stopping`` off), and the results are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from hemorrhage.decoding.reader import Reader, end_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hemorrhage.decoding.generation import Rows

NEVER = -float("inf")
LEAST = -1e4  # log-probability of what a broken model rules out; infinities would make every hypothesis equal


@dataclass
class Group:
    """The hypotheses of one group for every row of the batch.

    Attributes:
        scores: [b, w] summed log-probabilities of the running hypotheses.
        tokens: [b, w, step] their tokens.
        finished: [b, w] scores of the finished ones, best first; -inf where there is none.
        texts: [b][w] tokens of the finished ones.
        open: [b] False when nothing can change any more.
    """

    scores: torch.Tensor
    tokens: torch.Tensor
    finished: torch.Tensor
    texts: list[list[list[int]]]
    open: torch.Tensor

    @classmethod
    def start(cls, batch: int, width: int, device: torch.device) -> Group:
        """Return a group before the first token: its hypotheses are equal, so only the first one counts."""
        scores = torch.full((batch, width), NEVER, device=device)
        scores[:, 0] = 0.0
        return cls(
            scores,
            torch.empty(batch, width, 0, dtype=torch.long, device=device),
            torch.full((batch, width), NEVER, device=device),
            [[[]] * width for _ in range(batch)],
            torch.ones(batch, dtype=torch.bool, device=device),
        )

    def step(self, logs: torch.Tensor, ends: torch.Tensor, last: bool) -> torch.Tensor:
        """Take log-probabilities [b, w, V] of the next token; returns [b, w], the hypothesis that each one continues.

        Args:
            logs: of the next token.
            ends: [e] the end tokens.
            last: True if the limit is reached with this token.
        """
        width, vocabulary = logs.shape[1:]
        keep = min(max(2, 1 + len(ends)) * width, width * vocabulary)
        values, places = (logs + self.scores[..., None]).flatten(1).topk(keep, dim=-1)
        parents, chosen = places // vocabulary, places % vocabulary
        texts = torch.cat(
            [self.tokens.gather(1, parents[..., None].expand(-1, -1, self.tokens.shape[-1])), chosen[..., None]], dim=-1
        )
        ended = torch.isin(chosen, ends)
        self._finish(values, texts, ended | last)
        order = values.masked_fill(ended, NEVER).topk(width, dim=-1).indices
        self.scores = values.masked_fill(ended, NEVER).gather(1, order)
        self.tokens = texts.gather(1, order[..., None].expand(-1, -1, texts.shape[-1]))
        possible = self.scores[:, 0] / texts.shape[-1]
        self.open = self.open & (self.finished.isinf().any(-1) | (possible > self.finished[:, -1]))
        return parents.gather(1, order)

    def best(self, row: int) -> tuple[float, list[int]]:
        """The best finished hypothesis of a row: (score, tokens)."""
        return float(self.finished[row, 0]), self.texts[row][0]

    def _finish(self, values: torch.Tensor, texts: torch.Tensor, ended: torch.Tensor) -> None:
        """Let candidates that ended, of the best ``w``, join the finished ones."""
        width, length = self.scores.shape[1], texts.shape[-1]
        joins = ended[:, :width] & self.open[:, None]
        if not bool(joins.any()):
            return
        offered = (values[:, :width] / length).masked_fill(~joins, NEVER)
        self.finished, order = torch.cat([self.finished, offered], dim=1).topk(width, dim=-1)
        for row, chosen in enumerate(order.tolist()):
            pool = self.texts[row] + texts[row, :width].tolist()
            self.texts[row] = [pool[place] for place in chosen]


def search(
    model: PreTrainedModel, rows: Rows, limit: int, beams: int, groups: int = 1, penalty: float = 0.0
) -> list[list[int]]:
    """Return the tokens of the best finished hypothesis of every row.

    Args:
        model: a causal LM.
        rows: the batch.
        limit: most new tokens.
        beams: hypotheses in all.
        groups: number of groups; each has ``beams / groups`` hypotheses.
        penalty: taken from a token's log-probability for every running hypothesis of an earlier group with this token.
    """
    batch, width = len(rows.prompts), beams // groups
    ends = torch.tensor(end_tokens(model), dtype=torch.long, device=model.device)
    reader = Reader(model, rows.sequences)
    first = torch.arange(batch, device=model.device)
    reader.reorder(first.repeat_interleave(beams))
    team = [Group.start(batch, width, model.device) for _ in range(groups)]
    for step in range(limit):
        logs = reader.logits.log_softmax(-1).clamp(min=LEAST).view(batch, groups, width, -1)
        taken = torch.zeros(batch, logs.shape[-1], device=model.device)
        parents = []
        for place, group in enumerate(team):
            parent = group.step(logs[:, place] - penalty * taken[:, None], ends, step + 1 == limit)
            parents.append(parent + place * width)
            latest = group.tokens[..., -1]
            taken = taken.scatter_add(1, latest, torch.ones_like(latest, dtype=taken.dtype))
        if step + 1 == limit or not any(bool(group.open.any()) for group in team):
            break
        reader.reorder((first[:, None] * beams + torch.cat(parents, dim=1)).flatten())
        reader.read(torch.cat([group.tokens[..., -1] for group in team], dim=1).flatten())
    return [max((group.best(row) for group in team), key=lambda found: found[0])[1] for row in range(batch)]
