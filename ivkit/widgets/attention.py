"""Where each word is looked at: cross-attention of a PIA-layout network, for each frame."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate


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


@torch.no_grad()
def attention_maps(model, z: Tensor, t: Tensor, condition, text: str) -> dict[str, np.ndarray]:
    """How much each place looks at each word when the network reads z at t.

    model: of the PIA layout (with `video_unet` and `tokenizer`). z: scaled latent (F, C, h, w).
    condition: what the branch sees, made for `text`.

    Returns {word: float32 (F, h, w)}, each the mean over heads and layers of the conditional rows.
    Raises ValueError where the model has no such layers.
    """
    layers = [m for m in getattr(model, "video_unet", torch.nn.Module()).modules()
              if getattr(m, "is_cross_attention", False)]  # fmt: skip
    if not layers:
        raise ValueError(f"{model.name} has no cross-attention on words to show")
    frames, _, h, w = z.shape
    total = torch.zeros(frames, condition.text.shape[1], h, w)

    def watch(attn, args, kwargs):
        hidden = args[0] if args else kwargs["hidden_states"]
        words = kwargs["encoder_hidden_states"]
        q, k = (attn.head_to_batch_dim(f(x)) for f, x in ((attn.to_q, hidden), (attn.to_k, words)))
        scores = attn.get_attention_scores(q, k).float()  # (rows x frames x heads, places, tokens)
        scores = scores.view(-1, attn.heads, *scores.shape[1:]).mean(1)[-frames:]
        shrink = round((h * w / scores.shape[1]) ** 0.5)
        grid = scores.transpose(1, 2).reshape(frames, -1, h // shrink, w // shrink)
        total.add_(interpolate(grid, (h, w), mode="bilinear").cpu() / len(layers))

    hooks = [layer.register_forward_pre_hook(watch, with_kwargs=True) for layer in layers]
    try:
        model.predict(z[None], t, [condition])
    finally:
        for hook in hooks:
            hook.remove()
    return {word: total[:, at].mean(1).numpy() for word, at in words_of(model.tokenizer, text)}
