"""Attention maps: which word a cell of the picture looks at, or which frame at which.

    with record(pipe.model.unet) as maps:
        pipe.image("a boat on the blue sea at day")
    maps.of_token(2)  # (h, w): where "boat" is looked at

The network computes what it always does: the maps are worked out beside it.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor

from ..support.validate import Count, Index, Integer, Listed, check_index, checked
from .speed import plain

Indices = Annotated[tuple[int, ...], Listed(Integer(0, 100_000), "indices", least=1)]


@dataclass
class Maps:
    """What was recorded, layer by layer.

    Attributes:
        layers: {name of the layer: one tensor for each call of the network}, each
            (batch, heads, queries, keys), rows summing to 1. "text": queries are cells, keys are
            tokens; "space": both are cells; "time": both are frames, and cells count as batch.
            Where `tokens` were chosen: (batch, 1, queries, those tokens), the mean over heads.
        shape: (h, w) of the latent.
        tokens: those that were chosen; None where all are kept.
    """

    layers: dict[str, list[Tensor]] = field(default_factory=dict)
    shape: tuple[int, int] | None = None
    tokens: list[int] | None = None

    def __repr__(self) -> str:
        calls = max(map(len, self.layers.values()), default=0)
        return f"Maps({len(self.layers)} layers, {calls} calls)"

    @checked
    def of_token(self, token: Index, call: Index | None = None, row: Index = -1) -> Tensor:
        """How much each cell looks at one token: (h, w), the mean over layers and heads.

        token: its index in the text, 0 being the start-of-text token.
        call: which call of the network, that is which step; None takes the mean over all.
        row: which row of the batch; the last is the one with the text.
        Raises ValueError where nothing was recorded, or not that token.
        """
        if self.tokens is not None and token not in self.tokens:
            kept = ", ".join(map(str, self.tokens))
            raise ValueError(
                f"token {token} was not kept, {kept} were: record(..., tokens=[{token}]) keeps it"
            )
        seen = [m for maps in self.layers.values() for m in maps]
        if not seen:
            raise ValueError("the maps are empty: run the network inside `with record(...)`")
        check_index("token", token, seen[0].shape[-1] if self.tokens is None else token + 1)
        check_index("row", row, len(seen[0]))
        if call is not None:
            check_index("call", call, max(map(len, self.layers.values())))
        token = token if self.tokens is None else self.tokens.index(token)
        calls = slice(None) if call is None else slice(call, call + 1 or None)
        found = [self._at(m[row, :, :, token]) for ms in self.layers.values() for m in ms[calls]]
        return torch.stack(found).mean(0)

    def _at(self, looks: Tensor) -> Tensor:
        """(heads, cells of some level) -> (h, w)."""
        h, w = self.shape
        factor = round((h * w / looks.shape[-1]) ** 0.5)
        level = looks.mean(0).view(1, 1, -(-h // factor), -(-w // factor))
        return torch.nn.functional.interpolate(level, (h, w), mode="bilinear")[0, 0]


@checked
@contextmanager
def record(
    network: torch.nn.Module,
    kind: Literal["text", "space", "time"] = "text",
    tokens: Indices | None = None,
    rows: Count | None = None,
) -> Iterator[Maps]:
    """Record a UNet's attention for as long as the `with` block lasts, in this thread.

    network: a diffusers UNet2DConditionModel or UNetMotionModel.
    kind: "text" (cells to words), "space" (cells to cells), "time" (frames to frames).
    tokens: keep these keys alone, and the mean over heads: a hundredth of the memory or less.
    rows: keep the last so many rows of the batch alone; None keeps all.
    Raises ValueError for another kind, or a network that has no such layer.
    """
    ends = "attn2" if kind == "text" else "attn1"
    layers = {
        name: layer
        for name, layer in network.named_modules()
        if name.endswith(ends) and ("motion_modules" in name) == (kind == "time")
    }
    if not layers:
        raise ValueError(f"{type(network).__name__} has no attention of kind {kind!r}")
    maps = Maps({name: [] for name in layers}, tokens=None if tokens is None else list(tokens))
    mine = threading.get_ident()

    def note_shape(module, args):
        if threading.get_ident() == mine:
            maps.shape = tuple(args[0].shape[-2:])

    def seen(layer, cells: Tensor, keys: Tensor) -> Tensor:
        if tokens is None:
            return looks(layer, cells, keys).cpu()
        found = [  # a row at a time: what is not kept is never there all at once
            looks(layer, cell[None], key[None])[..., maps.tokens].mean(1, keepdim=True).cpu()
            for cell, key in zip(cells, keys, strict=True)
        ]
        return torch.cat(found)

    def keep(name):
        def watch(layer, args, options):
            if threading.get_ident() != mine:
                return
            cells = args[0] if args else options["hidden_states"]
            keys = args[1] if len(args) > 1 else options.get("encoder_hidden_states")
            some = slice(None if rows is None else -rows, None)
            keys = cells if keys is None else keys
            maps.layers[name].append(seen(layer, cells[some], keys[some]))

        return watch

    hooks = [getattr(network, "conv_in", network).register_forward_pre_hook(note_shape)]
    hooks += [m.register_forward_pre_hook(keep(n), with_kwargs=True) for n, m in layers.items()]
    try:
        with plain():
            yield maps
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def looks(layer, cells: Tensor, keys: Tensor) -> Tensor:
    """softmax(q k / sqrt(width)) of one layer: (batch, heads, queries, keys)."""
    cells, keys = (x.to(layer.to_q.weight) for x in (cells, keys))
    q, k = (
        x.unflatten(-1, (layer.heads, -1)).transpose(1, 2).float()
        for x in (layer.to_q(cells), layer.to_k(keys))
    )
    return (q @ k.transpose(-1, -2) * layer.scale).softmax(-1)


@torch.no_grad()
def of_words(model, text: str, z: Tensor, t: Tensor, condition) -> dict[str, np.ndarray]:
    """Where a clip's network looks at each word of its text: {word: float32 (F, h, w)}.

    z: (F, C, h, w), as the network takes it at time t. condition: of the text, as `model` makes it.
    Raises ValueError for a model whose network is no UNet.
    """
    network, frames = model.networks.get("video_unet"), len(z)
    if network is None:
        raise ValueError(f"{model.name} has no attention on words that could be shown")
    words = words_of(model.tokenizer, text)
    tokens = [i for _, at in words for i in at]
    # the last rows of the batch are the frames with the text
    with record(network, tokens=tokens, rows=frames) as maps:
        model.predict(z[None], t, [copy.copy(condition)])
    found = {}
    for word, at in words:
        rows = [[maps.of_token(i, row=f).float().numpy() for i in at] for f in range(frames)]
        found[word] = np.mean(rows, axis=1)
    return found


def words_of(tokenizer, text: str) -> list[tuple[str, list[int]]]:
    """(word, positions of its tokens) in the order they stand in the text; the n-th repeat is
    "word (n)"."""
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids)
    found, part, at, seen = [], "", [], {}
    for i, token in enumerate(tokens[1:-1], 1):  # between the marks of begin and end
        part, at = part + token.removesuffix("</w>"), [*at, i]
        if token.endswith("</w>"):
            seen[part] = seen.get(part, 0) + 1
            found.append((part if seen[part] == 1 else f"{part} ({seen[part]})", at))
            part, at = "", []
    return found
