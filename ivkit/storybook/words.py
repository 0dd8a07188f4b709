"""The storybook's language: captions, motion texts, and a tokenizer that knows its words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch

from ..support.disk import whole_folder
from ..support.validate import NONE, SENTENCE, Either, Kind, Listed, Sentence, checked, shown
from . import sprites
from .world import EVENTS, GROUNDS, MOVES, SLOTS, TIMES, Device, Scenes

MAX_TOKENS = 56
BOS, EOS = "<|startoftext|>", "<|endoftext|>"
_SPARE = "everything nothing drifts drift slowly quickly of in , . with its".split()
#: kept for what a user teaches the model, so that no text of the world has them
FREE = "sks", "style"
_SAID = (*sprites.NAMES, *sprites.COLOURS, "pink", *GROUNDS, *TIMES, *MOVES, *EVENTS)
_GLUE = "a an and on the at it move grow shrink tilt stay".split()
WORDS = sorted({*" ".join(_SAID).split(), *_GLUE, *_SPARE, *FREE})
PLURAL = {"polar lights"}
#: what a CLIP text model is told of the tokenizer; CLIP's pooling looks for the highest id
TOKENS = {
    "vocab_size": len(WORDS) + 2,
    "bos_token_id": len(WORDS),
    "eos_token_id": len(WORDS) + 1,
    "pad_token_id": len(WORDS) + 1,
}


def _label(value: Any) -> tuple[str, str | None]:
    noun, colour = value
    return SENTENCE("it", noun), Either(SENTENCE, NONE)("it", colour)


_LABEL = Kind("(noun, colour or None)", _label)
Label = Annotated[tuple, _LABEL]
Labels = Annotated[tuple, Listed(_LABEL, "labels")]


@checked
def name(label: Label, say_colour: bool) -> str:
    """ "blue car" or "car"."""
    return f"{label[1]} {label[0]}" if say_colour and label[1] else label[0]


@checked
def with_article(noun: Sentence) -> str:
    if noun in PLURAL:
        return noun
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def _verb(noun: str, verb: str) -> str:
    if noun in PLURAL:  # "the polar lights move left"
        first, *rest = verb.split()
        return " ".join([first[:-1], *rest])
    return verb


@checked
def texts(
    scenes: Scenes, labels: Labels, rng: np.random.Generator | None = None, vary: bool = True
) -> tuple[list[str], list[str]]:
    """Caption and motion text for every scene.

    With `vary`, as in training: parts of the caption are left out at random, and what does not move
    is named only half of the time. A caption names every colour but an object's own; a motion text
    may leave it to the picture.
    """
    if vary and rng is None:
        raise ValueError("rng must be a generator of NumPy where vary is True")
    if len(scenes) and int(scenes.sprite.max()) >= len(labels):
        raise ValueError(f"labels must hold one for each sprite, got {len(labels)}")
    said = ("ground", "time", "sprite", "present", "move", "event", "speed")
    rows = zip(*(getattr(scenes, k).tolist() for k in said), strict=True)
    captions, motions = [], []
    own = {n: c for n, (c, _) in sprites.TINTED.items()}

    def chance(p):
        return vary and rng.random() < p

    def ordered(slots):
        return rng.permutation(len(slots)) if vary else range(len(slots))

    for ground, time, sprite, present, move, event, speed in rows:
        slots = [k for k in range(SLOTS) if present[k]]
        labels_i = [labels[sprite[k]] for k in slots]
        kinds = [label[0] for label in labels_i]
        nouns = [
            name(x, own.get(x[0]) != x[1] or kinds.count(x[0]) > 1 or chance(0.3)) for x in labels_i
        ]
        caption = " and ".join(with_article(nouns[k]) for k in ordered(slots))
        place = GROUNDS[ground]
        if not chance(0.08):
            caption += f" on the {place.split()[-1] if chance(0.15) else place}"
        if not chance(0.08):
            caption += f" at {TIMES[time]}"
        captions.append(caption)

        parts = []
        for k, kind in enumerate(kinds):  # what the picture shows need not be said
            if kinds.count(kind) == 1 and chance(0.5):
                nouns[k] = kind
        order = ordered(slots)
        pace = " slowly" if speed < 0.5 else " quickly" if speed > 0.85 else ""
        pace = pace if pace and chance(0.4) else ""
        for k in order:
            way = move[slots[k]]
            if way == 0 and (chance(0.5) or not vary):
                continue
            verb = _verb(nouns[k], MOVES[way])
            if kinds[k] == "cloud" and way in (1, 2) and chance(0.5):
                verb = verb.replace("moves", "drifts")
            parts.append(f"the {nouns[k]} {verb}{pace if way else ''}")
        parts += [EVENTS[event]] * bool(event)
        if not parts:
            rest = ["everything stays still", "nothing moves"]
            parts = [rng.choice(rest) if vary else rest[0]]
        motions.append((" , " if chance(0.3) else " and ").join(parts))
    return captions, motions


def known(text: str, name: str = "text") -> list[str]:
    """The words of a text; ValueError where the storybook does not know one of them."""
    found = text.replace(",", " , ").split()
    for word in found:
        if word not in _IDS:
            raise ValueError(
                f"{name} has the word {shown(word)}, which the storybook does not know"
            )
    return found


@checked
def encode(text: str) -> list[int]:
    """Token ids of a text, MAX_TOKENS of them: the same that the shipped CLIPTokenizer gives.

    ValueError for a word that is none of `WORDS`.
    """
    ids = [_IDS[w] for w in known(text)][: MAX_TOKENS - 2]
    return [len(WORDS), *ids] + [len(WORDS) + 1] * (MAX_TOKENS - 1 - len(ids))


@checked
def ids(lines: list[str], device: Device = "cpu") -> torch.Tensor:
    """Token ids of texts: (n, MAX_TOKENS)."""
    for i, line in enumerate(lines):
        known(line, f"lines[{i}]")
    return torch.tensor([encode(line) for line in lines], device=device)


_IDS = {w: i for i, w in enumerate(WORDS)}


def write_tokenizer(folder: Path) -> None:
    """Writes CLIPTokenizer files in which every word of `WORDS` is one token.

    Byte-pair merges are learned word by word: what the merges so far leave of a word is joined from
    the left, at the end of the list, so that no later merge can disturb an earlier word. The ids of
    the words come first, the end-of-text id is the last (CLIP's pooling looks for the highest id).
    """
    from transformers import CLIPTokenizer

    merges: list[tuple[str, str]] = []
    for word in WORDS:
        letters = [*word[:-1], word[-1] + "</w>"]
        while len(parts := _bpe(letters, merges)) > 1:
            merges.append((parts[0], parts[1]))
    pieces = {piece for pair in merges for piece in pair}
    pieces |= {c + end for word in WORDS for c in word for end in ("", "</w>")}
    whole = [w + "</w>" for w in WORDS]
    tokens = [*whole, BOS, EOS, *sorted(pieces - set(whole))]
    vocab = {token: i for i, token in enumerate(tokens)}
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges), ""]
    with whole_folder(folder, new=False) as part:
        (part / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False))
        (part / "merges.txt").write_text("\n".join(lines))
        files = (str(part / name) for name in ("vocab.json", "merges.txt"))
        CLIPTokenizer(
            *files, model_max_length=MAX_TOKENS, pad_token=EOS, unk_token=EOS
        ).save_pretrained(part)


def _bpe(parts: list[str], merges: list[tuple[str, str]]) -> list[str]:
    rank = {pair: i for i, pair in enumerate(merges)}
    while len(parts) > 1:
        pairs = [
            (rank.get(p, len(merges)), i) for i, p in enumerate(zip(parts, parts[1:], strict=False))
        ]
        best, i = min(pairs)
        if best == len(merges):
            break
        parts = [*parts[:i], parts[i] + parts[i + 1], *parts[i + 2 :]]
    return parts
