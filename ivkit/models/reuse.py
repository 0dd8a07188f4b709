"""Deep features of a motion UNet reused across neighbouring steps: faster, and approximate.

DeepCache (arXiv 2312.00858): what the deep layers find changes slowly from step to step. Every
`every`-th evaluation of a branch is whole; between them only the first convolution and the last
layer of the last block run, on the deep features that this branch had. Each branch keeps its own.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

import torch
from torch import Tensor

KEPT_BRANCHES = 4  # of two clips at once; another one's begin anew


@dataclass
class Reuse:
    """every: 1 is exact, 3 evaluates the whole network at every third step of a branch."""

    every: int = 3
    whole: int = 0  # evaluations of the whole network, and of its last layer alone
    shallow: int = 0
    _kept: OrderedDict = field(default_factory=OrderedDict, repr=False)

    def clear(self) -> None:
        """Let go of what was kept, as when weights were changed."""
        self._kept.clear()

    def __call__(self, network, rows: list[Tensor], t: Tensor, texts: list[Tensor],
                 branches: list) -> list[Tensor]:  # fmt: skip
        """What the UNet predicts, for each branch (n, C, F, h, w).

        network: has `deep_features(z, t, text)` and `last_layer(z, t, text, deep)`.
        rows: for each branch (n, channels, F, h, w). texts: for each (n, tokens, width).
        branches: what tells them apart: the same object at every step.
        """
        due = [self._due(branch, t) for branch in branches]
        found: list[Tensor | None] = [None] * len(rows)
        for whole in (True, False):
            some = [i for i, d in enumerate(due) if d == whole]
            if not some:
                continue
            counts = [len(rows[i]) for i in some]
            z, text = (torch.cat([v[i] for i in some]) for v in (rows, texts))
            text = text.repeat_interleave(z.shape[2], 0)
            if whole:
                deep = network.deep_features(z, t, text)
                for i, part in zip(some, _split(deep, counts, z.shape[2]), strict=True):
                    self._kept[id(branches[i])] = [branches[i], float(t), 0, part]
                self.whole += len(some)
            else:
                deep = torch.cat([self._kept[id(branches[i])][3] for i in some])
                self.shallow += len(some)
            out = network.last_layer(z, t, text, deep)
            for i, part in zip(some, out.split(counts), strict=True):
                found[i] = part
        while len(self._kept) > KEPT_BRANCHES:
            self._kept.popitem(last=False)
        return found

    def _due(self, branch, t: Tensor) -> bool:
        """Whether the whole network runs; counts this evaluation, but not the second one of the
        same step: an interrupt has cut the first short, and this one does as it would have."""
        entry = self._kept.get(id(branch))
        if entry is None or float(t) > entry[1]:
            return True
        if float(t) < entry[1]:
            if entry[2] + 1 >= self.every:
                return True
            entry[1:3] = [float(t), entry[2] + 1]
        self._kept.move_to_end(id(branch))
        return entry[2] == 0


def _split(deep: Tensor, counts: list[int], frames: int) -> tuple[Tensor, ...]:
    return deep.split([n * frames for n in counts])
