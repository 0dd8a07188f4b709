"""Deep features of a motion UNet reused across neighbouring steps: faster, and approximate.

DeepCache (arXiv 2312.00858): what the deep layers find changes slowly from step to step. Every
`every`-th evaluation of a branch is whole; between them only the first convolution and the last
layer of the last block run, on the deep features that this branch had. Each branch keeps its own.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from .motion import Network

KEPT_BRANCHES = 4  # of two clips at once; another one's begin anew


@dataclass
class Reuse:
    """A network that is called as `motion.Network` is, for one branch at a time.

    every: 1 is exact, 3 evaluates the whole network at every third step of a branch.
    branch: (its condition, which of its rows), set before each call.
    """

    network: Network
    every: int = 3
    whole: int = 0  # evaluations of the whole network, and of its last layer alone
    shallow: int = 0
    branch: tuple[Any, int] = (None, 0)
    _kept: OrderedDict = field(default_factory=OrderedDict, repr=False)

    def clear(self) -> None:
        """Let go of what was kept, as when weights were changed."""
        self._kept.clear()

    def __call__(self, z: Tensor, t: Tensor, text: Tensor) -> Tensor:
        key = id(self.branch[0]), self.branch[1]
        if self._due(key, t):
            deep = self.network.deep_features(z, t, text)
            self._kept[key] = [self.branch, float(t), 0, deep]
            self.whole += 1
        else:
            deep = self._kept[key][3]
            self.shallow += 1
        out = self.network.last_layer(z, t, text, deep)
        while len(self._kept) > KEPT_BRANCHES:
            self._kept.popitem(last=False)
        return out

    def _due(self, key: tuple[int, int], t: Tensor) -> bool:
        """Whether the whole network runs; counts this evaluation, but not the second one of the
        same step: an interrupt has cut the first short, and this one does as it would have."""
        entry = self._kept.get(key)
        if entry is None or float(t) > entry[1]:
            return True
        if float(t) < entry[1]:
            if entry[2] + 1 >= self.every:
                return True
            entry[1:3] = [float(t), entry[2] + 1]
        self._kept.move_to_end(key)
        return entry[2] == 0
