"""The storybook's language: captions, motion texts, and a tokenizer that knows its words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from . import sprites
from .world import EVENTS, GROUNDS, MOVES, SLOTS, TIMES, Scenes

MAX_TOKENS = 56
BOS, EOS = "<|startoftext|>", "<|endoftext|>"
_SPARE = "everything nothing drifts drift slowly quickly of in , . with its".split()
#: kept for what a user teaches the model, so that no text of the world has them
FREE = "sks", "style"
WORDS = sorted(
    set(
        " ".join(
            [
                *sprites.NAMES,
                *sprites.COLOURS,
                "pink",
                *GROUNDS,
                *TIMES,
                *MOVES,
                *EVENTS,
                "a an and on the at it move grow shrink tilt stay",
            ]
        ).split()
    )
    | {*_SPARE, *FREE}
)
PLURAL = {"polar lights"}


def name(label: tuple[str, str | None], say_colour: bool) -> str:
    """ "blue car" or "car"."""
    return f"{label[1]} {label[0]}" if say_colour and label[1] else label[0]


def with_article(noun: str) -> str:
    if noun in PLURAL:
        return noun
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def _verb(noun: str, verb: str) -> str:
    if noun in PLURAL:  # "the polar lights move left"
        first, *rest = verb.split()
        return " ".join([first[:-1], *rest])
    return verb


def texts(
    scenes: Scenes, labels, rng: np.random.Generator, vary: bool = True
) -> tuple[list[str], list[str]]:
    """Caption and motion text for every scene.

    With `vary`, as in training: parts of the caption are left out at random, and what does not move
    is named only half of the time. A caption names every colour but an object's own; a motion text
    may leave it to the picture.
    """
    rows = {
        k: getattr(scenes, k).tolist()
        for k in ("ground", "time", "sprite", "present", "move", "event", "speed")
    }
    captions, motions = [], []

    def chance(p):
        return vary and rng.random() < p

    own = {n: c for n, (c, _) in sprites.TINTED.items()}
    for i in range(len(scenes)):
        slots = [k for k in range(SLOTS) if rows["present"][i][k]]
        labels_i = [labels[rows["sprite"][i][k]] for k in slots]
        kinds = [label[0] for label in labels_i]
        nouns = [
            name(x, own.get(x[0]) != x[1] or kinds.count(x[0]) > 1 or chance(0.3)) for x in labels_i
        ]
        order = rng.permutation(len(slots)) if vary else range(len(slots))
        caption = " and ".join(with_article(nouns[k]) for k in order)
        ground = GROUNDS[rows["ground"][i]]
        if not chance(0.08):
            caption += f" on the {ground.split()[-1] if chance(0.15) else ground}"
        if not chance(0.08):
            caption += f" at {TIMES[rows['time'][i]]}"
        captions.append(caption)

        parts, _all_named = [], True
        for k, (kind, _) in enumerate(labels_i):  # what the picture shows need not be said
            if kinds.count(kind) == 1 and chance(0.5):
                nouns[k] = kind
        order = rng.permutation(len(slots)) if vary else range(len(slots))
        speed = rows["speed"][i]
        pace = (
            " slowly"
            if speed < 0.5 and chance(0.4)
            else " quickly"
            if speed > 0.85 and chance(0.4)
            else ""
        )
        for k in order:
            move = rows["move"][i][slots[k]]
            if move == 0 and (chance(0.5) or not vary):
                continue
            verb = _verb(nouns[k], MOVES[move])
            if kinds[k] == "cloud" and move in (1, 2) and chance(0.5):
                verb = verb.replace("moves", "drifts")
            parts.append(f"the {nouns[k]} {verb}{pace if move else ''}")
        event = EVENTS[rows["event"][i]]
        if event:
            parts.append(event)
        if not parts:
            parts = [
                rng.choice(["everything stays still", "nothing moves"])
                if vary
                else "everything stays still"
            ]
        motions.append((" , " if chance(0.3) else " and ").join(parts))
    return captions, motions


def encode(text: str) -> list[int]:
    """Token ids of a text, MAX_TOKENS of them: the same that the shipped CLIPTokenizer gives."""
    ids = [_IDS[w] for w in text.replace(",", " , ").split()][: MAX_TOKENS - 2]
    return [len(WORDS), *ids] + [len(WORDS) + 1] * (MAX_TOKENS - 1 - len(ids))


_IDS = {w: i for i, w in enumerate(WORDS)}


def write_tokenizer(folder: Path) -> None:
    """Writes CLIPTokenizer files in which every word of `WORDS` is one token.

    Byte-pair merges are learned word by word: what the merges so far leave of a word is joined from
    the left, at the end of the list, so that no later merge can disturb an earlier word. The ids of
    the words come first, the end-of-text id is the last (CLIP's pooling looks for the highest id).
    """
    from transformers import CLIPTokenizer

    merges: list[tuple[str, str]] = []
    pieces: set[str] = set()
    for word in WORDS:
        parts = _bpe([*word[:-1], word[-1] + "</w>"], merges)
        while len(parts) > 1:
            merges.append((parts[0], parts[1]))
            parts = _bpe([*word[:-1], word[-1] + "</w>"], merges)
    for a, b in merges:
        pieces |= {a, b}
    letters = {c for w in WORDS for c in w} | {c + "</w>" for w in WORDS for c in w}
    whole = [w + "</w>" for w in WORDS]
    rest = sorted((pieces | letters) - set(whole))
    vocab = {t: i for i, t in enumerate(whole)}
    vocab |= {BOS: len(WORDS), EOS: len(WORDS) + 1}
    vocab |= {t: len(vocab) + i for i, t in enumerate(rest)}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False))
    (folder / "merges.txt").write_text(
        "#version: 0.2\n" + "\n".join(f"{a} {b}" for a, b in merges) + "\n"
    )
    CLIPTokenizer(
        str(folder / "vocab.json"),
        str(folder / "merges.txt"),
        model_max_length=MAX_TOKENS,
        pad_token=EOS,
        unk_token=EOS,
    ).save_pretrained(folder)


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
