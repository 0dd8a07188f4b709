"""Small networks with random weights in each checkpoint's own classes: its layout, not its size.

`ivkit.load("svd", small=True)` runs what `ivkit.load("svd")` runs, in seconds on a CPU and without
a download. What such a model makes means nothing. Schedulers, multiples of sizes and of frames, and
lengths of texts are the checkpoint's own, so that what is refused here is refused there.

small.json says what each layout is made of; "as" names the layout that one begins with.
"""

from __future__ import annotations

import json
import string
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from . import pia
from .hub import make, quietly
from .sd import few_steps

LAYOUTS = json.loads(Path(__file__).with_suffix(".json").read_text())
CLIP_TOKENS = 77


def load(row, *, device, dtype, **options):
    """A small model of a row of the table; `options` are the fields of its family's class."""
    print(f"{row.name}: small networks with random weights: what they make means nothing")
    made, own = parts(row.name), layout(row.name)
    kind = {"device": device, "dtype": dtype}
    module = import_module(f".{row.family}", __package__)
    if hasattr(module, "FAMILY"):
        size = {"size": tuple(own["size"]), "num_frames": own["num_frames"]}
        return make(module.FAMILY, row.name, made, {**row.settings, **size, **options}, **kind)
    if options:
        raise TypeError(f"{next(iter(options))!r} is no option of a small {row.name}")
    cls = {"cls": module.AnimateDiffModel} if row.family == "animatediff" else {}
    few = few_steps(made) if row.few_step else {}
    facts = {**row.settings, "num_frames": own["num_frames"], **few}
    return pia.build(row.name, made, facts, **kind, **cls)


def layout(name: str) -> dict[str, Any]:
    """Of a checkpoint of the table, by its name: "parts", "num_frames" and perhaps "size"."""
    told = LAYOUTS[max(filter(name.startswith, LAYOUTS), key=len)]
    first = layout(told["as"]) if "as" in told else {"parts": {}}
    return {**first, **told, "parts": {**first["parts"], **told["parts"]}}


def parts(name: str) -> dict[str, Any]:
    """Fresh parts of the checkpoint of that name in the table, by their names in diffusers."""
    with quietly(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return {part: made(config) for part, config in layout(name)["parts"].items()}


def made(config: dict[str, Any] | None):
    """A part by its class and its settings; None of None."""
    import diffusers
    import transformers

    if config is None:
        return None
    settings = dict(config)
    name = settings.pop("class")
    if name in TOKENIZERS:
        return TOKENIZERS[name](**settings)
    cls = getattr(diffusers, name, None)
    if cls is None:
        cls = getattr(transformers, name)
        settings = {"config": cls.config_class(**settings)} if "Model" in name else settings
    found = cls(**settings)
    return found.eval().requires_grad_(False) if isinstance(found, torch.nn.Module) else found


def clip_tokenizer(length: int = CLIP_TOKENS):
    """Reads letters, each of which may end a word, and passes over what is none."""
    from transformers import CLIPTokenizer

    tokens = [c + end for c in string.ascii_lowercase for end in ("", "</w>")]
    vocab = {token: i for i, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=length)


def t5_tokenizer():
    """Reads letters as T5's does words: an end token, and padding on the right."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocab = {c: i for i, c in enumerate(["<pad>", "</s>", "<unk>", *string.ascii_lowercase, " "])}
    found = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    found.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    found.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=found, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


TOKENIZERS = {"words of letters": clip_tokenizer, "letters": t5_tokenizer}
