"""What every clip is measured by, whatever benchmark it belongs to; intervals by bootstrap."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from PIL import Image

from ..instructions import Drag
from ..pictures import PICTURE, Picture
from ..support.validate import (
    Array,
    Count,
    File,
    Listed,
    Pixels,
    Seed,
    Sentence,
    checked,
    shown,
)
from . import metrics
from .methods import Job
from .metrics import Several

SCALE = 250  # CLIPScore's w = 2.5, x 100: what the paper's Table 1 seems to print


class Measure(NamedTuple):
    """Its heading, what is better (+1 more, -1 less, 0 neither), and how a table prints it."""

    heading: str
    better: int
    digits: int = 2
    percent: bool = False

    @property
    def arrow(self) -> str:
        return ("", " ↑", " ↓")[self.better]


MEASURES = {
    "image": Measure("image alignment", 1, 3),
    "image_x": Measure("to the unedited", 0, 3),
    "text": Measure("text alignment", 1, 3),
    "motion_obeyed": Measure("motion obeyed", 1, 1, percent=True),
    "drag_distance": Measure("drag distance", -1, 1, percent=True),
    "path_distance": Measure("path distance", -1, 1, percent=True),
    "background": Measure("background dB", 1),
    "edit_kept": Measure("edit kept", 1, 1, percent=True),
    "edit_named": Measure("edit named", 1, 1, percent=True),
    "flicker": Measure("flicker", -1),
    "motion": Measure("motion amount", 0),
    "seconds": Measure("seconds", 0),
}


_LABELS = Array("N", of="USbiuf", finite=False)
_LABELS.what = "a list of labels, one for each of the values"
Labels = Annotated[np.ndarray, _LABELS]
Values = Annotated[np.ndarray, Array("N", finite=False)]
Pictures = Annotated[tuple, Listed(PICTURE, "pictures", least=1)]


class Clip:
    """Cosines by a CLIP model: a hub id, a folder, or "storybook" for the package's own."""

    @checked
    def __init__(self, name: Sentence = "storybook", device="cpu"):
        from transformers import CLIPModel, CLIPProcessor

        from ..models import pick, storybook_folder

        self.name, self.device = name, pick(device)[0]
        place = storybook_folder() / "clip" if name == "storybook" else name
        try:
            self.model = CLIPModel.from_pretrained(place).float().eval().to(self.device)
            self.processor = CLIPProcessor.from_pretrained(place)
        except Exception as error:  # of a damaged file anything
            why = str(error).partition("\n")[0][:200]
            raise FileNotFoundError(f"name {shown(name)} is no CLIP model here: {why}") from None
        self.known = self.model.config.text_config.vocab_size

    @checked
    def images(self, pictures: Pictures) -> np.ndarray:
        """Pictures, uint8 (H, W, 3) or PIL, as unit vectors (N, d)."""
        inputs = self.processor(images=list(pictures), return_tensors="pt").to(self.device)
        return self._unit(self.model.vision_model, self.model.visual_projection, inputs)

    @checked
    def text(self, text: Sentence) -> np.ndarray:
        """A text as a unit vector (1, d); cut off where the model reads no further.

        ValueError where it has a word that the storybook's own model does not know.
        """
        for word in text.replace(",", " , ").split():
            if max(self.processor.tokenizer(word).input_ids) >= self.known:
                raise ValueError(
                    f"text has the word {shown(word)}, which {self.name} does not know"
                )
        how = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
        inputs = self.processor(text=[text], **how).to(self.device)
        return self._unit(self.model.text_model, self.model.text_projection, inputs)

    @staticmethod
    def _unit(tower, projection, inputs) -> np.ndarray:
        import torch

        with torch.no_grad():
            v = projection(tower(**inputs).pooler_output)
        return torch.nn.functional.normalize(v.float(), dim=-1).cpu().numpy()


@checked
def measure(frames: Several, job: Job, edited: Picture, clip: Clip) -> dict:
    """The measures of `MEASURES` that this job allows, as plain numbers.

    `image` is the mean cosine of the frames with x' (what the person asked for), `image_x` with x,
    `text` with y. Distances are shares of the width; a thing that is gone counts as one width.
    """
    seen = clip.images(frames)
    pictures = clip.images([edited, job.picture])
    row = {
        "image": float((seen @ pictures[0]).mean()),
        "image_x": float((seen @ pictures[1]).mean()),
        "text": float((seen @ clip.text(job.text)[0]).mean()),
        **of_edits(frames, job.picture, edited, job.drags),
    }
    if job.judge is not None:
        row |= job.judge(frames, _tracks(frames, job.picture, job.drags))
    return {name: float(value) for name, value in row.items()}


@checked
def of_edits(frames: Several, picture: Pixels, edited: Pixels, drags: list[Drag]) -> dict:
    """What can be measured of any job, without the truth: flicker, motion, and whether its drags
    arrive and its paint is kept."""
    row = {"flicker": metrics.flicker(frames), "motion": metrics.motion_amount(frames)}
    found = _tracks(frames, picture, drags)
    if found is not None:
        off = np.array([_distances(*one) for one in zip(found, drags, strict=True)])
        ends, ways = off.mean(0) / frames.shape[2]
        row |= {"drag_distance": float(ends), "path_distance": float(ways)}
    region = np.abs(edited.astype(int) - picture).sum(-1) > 60
    if region.any():
        row["edit_kept"] = metrics.edit_kept(frames, picture, edited, region)
    return row


def _tracks(frames: np.ndarray, picture: Image.Image, drags) -> np.ndarray | None:
    """Where each dragged thing is, (drags, F, 2); None where that cannot be said."""
    if not drags or not all(drag.mask is not None and drag.path for drag in drags):
        return None
    return np.stack([metrics.track(frames, picture, drag.mask) for drag in drags])


def _distances(track: np.ndarray, drag) -> tuple[float, float]:
    """Pixels from the target at the end, and from the path's own place on the mean."""
    from ..trajectory import displacement

    y, x = np.argwhere(drag.mask).mean(0)
    field = displacement([drag], drag.mask.shape, len(track))
    true = np.array([x, y]) + field[:, drag.mask].mean(1)
    off = np.linalg.norm(track - true, axis=1)
    off = np.where(np.isfinite(off), off, drag.mask.shape[1])
    return off[-1], off.mean()


@checked
def bootstrap(
    values: Values, groups: Labels | None = None, n: Count = 2000, seed: Seed = 0
) -> tuple[float, float, float]:
    """Mean of the values and its 95% interval, resampling whole groups with replacement.

    values: (N,) numbers, NaN where there is none; groups: (N,) labels, each value its own by
    default. Three NaN where there is no value, and no interval from fewer than two groups.
    """
    groups = np.arange(len(values)) if groups is None else groups
    keep = np.isfinite(values)
    if not keep.any():
        return (float("nan"),) * 3
    values, groups = values[keep], np.unique(groups[keep], return_inverse=True)[1]
    if groups.max() == 0:
        return float(values.mean()), float("nan"), float("nan")
    sums = np.bincount(groups, values)
    counts = np.bincount(groups)
    drawn = np.random.default_rng(seed).integers(0, len(sums), (n, len(sums)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(values.mean()), float(low), float(high)


@checked
def fingerprint(folder: File | None) -> str:
    """Tells weights apart: of their contents where they are small, else of names and sizes."""
    import hashlib

    if folder is None:
        return ""
    files = sorted(f for f in Path(folder).rglob("*.safetensors") if f.is_file())
    small, found = sum(f.stat().st_size for f in files) < 2**27, hashlib.sha256()
    for f in files:
        found.update(f"{f.relative_to(folder)} {f.stat().st_size}".encode())
        if small:
            found.update(f.read_bytes())
    return found.hexdigest()[:12]
