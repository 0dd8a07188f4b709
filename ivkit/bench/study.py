"""A blind study: which of two clips is better, by people who do not know what made them.

In a notebook, on clips that a benchmark kept (`--keep-clips`):

    Study("outputs/storybench/storybook/clips", "answers.csv", participant="p1")

Every answer is in the CSV the moment it is given, and the same participant goes on where they left.
`python -m ivkit.bench study answers.csv` prints the paper's User Study columns with intervals.
"""

from __future__ import annotations

import csv
import io
import json
import random
from datetime import UTC, datetime
from html import escape
from itertools import combinations
from pathlib import Path
from typing import Annotated

import numpy as np

from ..pictures import Picture
from ..support.disk import append, destination, write_picture, write_text
from ..support.validate import Choice, Count, File, Name, Sentence, Video, checked, shown
from .methods import Job
from .scores import bootstrap
from .tables import PAPER_VOTES, Means, Rows, has, markdown, votes

CHOICES = ("left", "same", "right")
QUESTIONS = {
    "image": ("Which follows the picture better?", CHOICES),
    "text": ("Which follows the text better?", CHOICES),
    "satisfied_left": ("Are you satisfied with the left one?", ("yes", "no")),
    "satisfied_right": ("Are you satisfied with the right one?", ("yes", "no")),
}
_ANSWER = {name: options for name, (_, options) in QUESTIONS.items()}
Answers = Annotated[
    tuple,
    Rows("answers", dict.fromkeys(("participant", "case", "left", "right")) | _ANSWER),
]
COLUMNS = ("time", "participant", "case", "left", "right", *QUESTIONS)


def add_arguments(parser) -> None:
    parser.add_argument("answers", type=Path, nargs="+", help="CSV files of answers")


def main(args) -> None:
    print(table(columns([row for file in args.answers for row in read(file)])))


@checked
def asked(job: Job, edited: Picture):
    """What a person was after, as a picture: x' with an arrow for every drag."""
    from PIL import ImageDraw

    picture = edited.copy()
    draw, width = ImageDraw.Draw(picture), max(2, picture.width // 80)
    for drag in job.drags:
        for path in drag.paths:
            draw.line(path, fill="#e02020", width=width, joint="curve")
            (x, y), r = path[-1], 2 * width
            draw.ellipse((x - r, y - r, x + r, y + r), fill="#e02020")
    return picture


@checked
def keep(folder: File, job: Job, edited: Picture, method: Name, frames: Video) -> None:
    """One clip, uint8 (F, H, W, 3), for a study: CASE/METHOD.mp4, and beside it what was asked."""
    from ..view import save_video

    folder = folder / job.id
    save_video(folder / f"{method}.mp4", frames)
    write_picture(folder / "asked.png", asked(job, edited))
    texts = {"text": job.text, "motion": job.motion}
    write_text(folder / "texts.json", json.dumps(texts))


@checked
def trials(
    folder: File, participant: Sentence, pairs: Count = 40, methods: list[str] | None = None
) -> list[tuple[str, str, str]]:
    """(case, left, right) of one participant: the same order whenever they come back.

    Each pair of methods comes equally often, on a case of its own as long as there are cases; which
    side a method is on is drawn by lot. ValueError where the folder holds no two clips of a case.
    """
    clips = {d.name: sorted(f.stem for f in d.glob("*.mp4")) for d in sorted(folder.glob("*"))}
    clips = {c: [m for m in found if methods is None or m in methods] for c, found in clips.items()}
    clips = {case: found for case, found in clips.items() if len(found) > 1}
    if not clips:
        of = "" if methods is None else f" of methods {shown(methods)}"
        raise ValueError(f"{folder} holds no case with two clips{of}: make them with --keep-clips")
    known = sorted({m for found in clips.values() for m in found})
    lot = random.Random(participant)
    sets = [set(found) for found in clips.values()]
    kinds = [
        pair for pair in combinations(known, 2) if any(found.issuperset(pair) for found in sets)
    ]
    used: dict[str, int] = dict.fromkeys(clips, 0)
    seen, chosen = set(), []
    while len(chosen) < pairs:
        before = len(chosen)
        for pair in lot.sample(kinds, len(kinds)):
            fits = [c for c in clips if set(pair) <= set(clips[c]) and (c, pair) not in seen]
            if fits and len(chosen) < pairs:
                case = min(lot.sample(fits, len(fits)), key=used.get)
                used[case] += 1
                seen.add((case, pair))
                chosen.append((case, *lot.sample(pair, 2)))
        if len(chosen) == before:  # there are no more
            break
    return chosen


@checked
def read(file: File) -> list[dict]:
    """The answers of a CSV; ValueError where it is none, or holds an answer that is none."""
    try:
        with file.open(newline="", encoding="utf-8") as f:
            rows = list(csv.DictReader(f))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{str(file)!r} cannot be read ({error})") from None
    for i, row in enumerate(rows):
        answered = all(row.get(name) in options for name, (_, options) in QUESTIONS.items())
        if not (answered and row.get("left") and row.get("right")):
            raise ValueError(f"{str(file)!r}, row {i + 1} is no answer of a blind study")
    return rows


@checked
def columns(rows: Answers) -> dict[str, dict[str, tuple[float, float, float]]]:
    """method -> image, text: how often it was preferred (a tie counts half); satisfaction: how
    often people were satisfied. Each (mean, low, high), shares in [0, 1].

    The interval resamples participants, or, where there is one alone, cases.
    """
    people = {row["participant"] for row in rows}
    by = "participant" if len(people) > 1 else "case"
    found: dict[str, dict[str, list]] = {}
    for row in rows:
        for side in ("left", "right"):
            own = found.setdefault(row[side], {"image": [], "text": [], "satisfaction": [], by: []})
            for question in ("image", "text"):
                vote = row[question]
                own[question].append(0.5 if vote == "same" else float(vote == side))
            own["satisfaction"].append(float(row[f"satisfied_{side}"] == "yes"))
            own[by].append(row[by])
    return {
        method: {k: bootstrap(own[k], own[by]) for k in ("image", "text", "satisfaction")}
        | {"answers": (float(len(own[by])), np.nan, np.nan)}
        for method, own in sorted(found.items())
    }


@checked
def table(found: Means) -> str:
    """The User Study columns of the paper's Table 1: its rows as printed, and ours."""
    rows = [[f"{name}, as the paper prints it", *votes(r), ""] for name, r in PAPER_VOTES.items()]
    has(found, "answers", name="found")
    rows += [[name, *votes(row), f"{row['answers'][0]:.0f}"] for name, row in found.items()]
    return markdown(["method", "Image", "Text", "Satisfaction %", "answers"], rows)


class Study:
    """The widget: two clips, three questions, and the next pair. `.widget` is what is shown.

    Args:
        clips: a folder of CASE/METHOD.mp4, with asked.png and texts.json beside them.
        answers: the CSV; made where there is none, added to where there is one.
        participant: any name; it draws the order.
        pairs: how many to judge. methods: these alone.
    """

    @checked
    def __init__(
        self,
        clips: File,
        answers: File = Path("answers.csv"),
        participant: Sentence = "p1",
        pairs: Count = 40,
        methods: list[str] | None = None,
    ):
        import ipywidgets as W

        self.folder, self.participant = clips, participant
        self.file = destination("answers", answers)
        self.trials = trials(self.folder, participant, pairs, methods)
        done = read(self.file) if self.file.is_file() else []
        done = [r for r in done if r["participant"] == participant]
        mine = [{r["case"], r["left"], r["right"]} for r in done]
        self.left_to_do = [trial for trial in self.trials if set(trial) not in mine]

        how = {"format": "mp4", "autoplay": True, "loop": True, "controls": False, "width": 300}
        self.clips = [W.Video(value=b"", **how) for _ in range(2)]
        self.picture = W.Image(format="png", width=220)
        self.texts, self.progress = W.HTML(), W.HTML()

        def ask(options, text):
            style = {"description_width": "initial"}
            buttons = W.ToggleButtons(options=options, value=None, description=text, style=style)
            buttons.observe(self._answered, "value")
            return buttons

        self.questions = {name: ask(options, said) for name, (said, options) in QUESTIONS.items()}
        self.next = W.Button(description="Next", button_style="primary", disabled=True)
        self.next.on_click(lambda _: self.keep())
        shown = W.HBox([self.picture, self.texts]), W.HBox(self.clips)
        self.widget = W.VBox([self.progress, *shown, *self.questions.values(), self.next])
        self._show()

    def _repr_mimebundle_(self, **options):
        return self.widget._repr_mimebundle_(**options)

    def _answered(self, _=None) -> None:
        self.next.disabled = any(q.value is None for q in self.questions.values())

    def answer(self, image: str, text: str, satisfied_left: str, satisfied_right: str) -> None:
        """Answer the pair that is shown, as the buttons and Next do.

        image, text: one of CHOICES; satisfied_*: "yes" or "no". ValueError for any other.
        """
        given = (image, text, satisfied_left, satisfied_right)
        for (name, question), value in zip(self.questions.items(), given, strict=True):
            Choice(*question.options)(name, value)
            question.value = value
        self.keep()

    def keep(self) -> None:
        """Write the answer down, then show the next pair."""
        if not self.left_to_do or any(q.value is None for q in self.questions.values()):
            return
        row = dict(zip(("case", "left", "right"), self.left_to_do[0], strict=True))
        row |= {name: question.value for name, question in self.questions.items()}
        now = datetime.now(UTC).isoformat(timespec="seconds")
        row |= {"time": now, "participant": self.participant}
        lines = io.StringIO(newline="")
        writer = csv.DictWriter(lines, COLUMNS)
        if not self.file.is_file() or self.file.stat().st_size == 0:
            writer.writeheader()
        writer.writerow(row)
        append(self.file, lines.getvalue().encode())
        self.left_to_do.pop(0)
        self._show()

    def _show(self) -> None:
        for question in self.questions.values():
            question.value = None
        self._answered()
        count = len(self.trials) - len(self.left_to_do)
        self.progress.value = f"<b>{count} of {len(self.trials)} pairs done</b>"
        if not self.left_to_do:
            self.progress.value += ". Thank you: that was the last one."
            for part in self.widget.children[1:]:
                part.layout.display = "none"
            return
        case, *sides = self.left_to_do[0]
        for clip, method in zip(self.clips, sides, strict=True):
            clip.value = (self.folder / case / f"{method}.mp4").read_bytes()  # no name is shown
        picture, texts = self.folder / case / "asked.png", self.folder / case / "texts.json"
        if picture.is_file():
            self.picture.value = picture.read_bytes()
        if texts.is_file():
            said = json.loads(texts.read_text(encoding="utf-8"))
            said = {name: escape(text) for name, text in said.items()}
            self.texts.value = (
                f"The picture: {said['text']}.<br>What should happen: {said['motion']}; what a red "
                "line begins on should go along it to the dot."
            )
