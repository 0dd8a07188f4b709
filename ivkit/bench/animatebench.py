"""AnimateBench: 105 cases from its own folders, with the same methods, measures and tables.

Its layout, from a folder or the hub: `img/STYLE/1.png ... 5.png`, and `configs/*.yaml`, each with
`prompts` (a list for each picture, three motion prompts in it) and `validation_data: input_name`
(the style, or one picture). It has no painted edits and no drags, so only the methods without
interaction are run, unless you add yours: `interactions/STYLE/PICTURE-NUMBER.json`, each an
`ivkit.Instructions` that was saved; NUMBER counts the prompts from 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

from PIL import Image, ImageOps

from ..instructions import ContentInstruction, Instructions
from ..pictures import to_picture
from ..trajectory import with_masks
from . import runner
from .methods import METHODS, Job

HUB = "ymzhang319/AnimateBench"
CLIP = "openai/clip-vit-large-patch14"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


@dataclass(frozen=True)
class Case:
    """One motion prompt of one picture."""

    id: str
    group: str
    picture: Path
    prompt: str
    negative: str = ""
    interaction: Path | None = field(default=None)


def add_arguments(parser) -> None:
    runner.add_arguments(parser)
    parser.add_argument("--bench", default=HUB, help="a folder, or a data set's id (%(default)s)")
    parser.add_argument("--subset", action="store_true", help="ten cases, spread over the styles")
    said = "a checkpoint for text alone, such as animatediff"
    parser.add_argument("--t2v", metavar="MODEL", help=said)
    parser.add_argument("--negative", action="store_true", help="use its negative prompts too")


def main(args) -> None:
    cases = read(locate(args.bench), args.negative)
    if args.subset:
        cases = cases[:: max(1, len(cases) // 10)][:10]
    args.model, args.clip = args.model or "pia", args.clip or CLIP
    args.out = args.out or Path("outputs") / "animatebench" / Path(args.model).name
    runner.main(args, cases, job, METHODS, "AnimateBench")


def locate(place: str) -> Path:
    """The folder itself, or a data set of the hub, downloaded."""
    if Path(place).is_dir():
        return Path(place)
    if place.count("/") != 1:
        raise ValueError(f"--bench: there is no folder {place!r}")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(place, repo_type="dataset"))
    except Exception as error:
        raise ValueError(f"--bench: {place} could not be fetched ({error})") from None


def read(folder: Path, negative: bool = False) -> list[Case]:
    """All cases of a folder in AnimateBench's layout; ValueError naming what is missing."""
    import yaml

    folder = Path(folder)
    configs = sorted(f for f in folder.glob("configs/**/*") if f.suffix in (".yaml", ".yml"))
    if not configs or not (folder / "img").is_dir():
        raise ValueError(f"{folder} is not AnimateBench: it needs img/ and configs/*.yaml")
    cases = []
    for config in configs:
        data = yaml.safe_load(config.read_text(encoding="utf-8")) or {}
        if "prompts" not in data:  # a base that others build on
            continue
        pictures = _pictures(folder / "img", config, data.get("validation_data") or {})
        prompts = data["prompts"]
        if isinstance(prompts[0], str):
            prompts = [prompts]
        if len(prompts) not in (1, len(pictures)):
            raise ValueError(
                f"{config.name} has {len(prompts)} lists of prompts for {len(pictures)} pictures"
            )
        against = (data.get("n_prompt") or [""]) if negative else [""]
        for i, picture in enumerate(pictures):
            group = f"{picture.parent.name}-{picture.stem}"
            for k, prompt in enumerate(prompts[i % len(prompts)]):
                mine = folder / "interactions" / picture.parent.name / f"{picture.stem}-{k}.json"
                mine = mine if mine.is_file() else None
                negative_prompt = against[i % len(against)] or ""
                cases.append(Case(f"{group}-{k}", group, picture, prompt, negative_prompt, mine))
    if not cases:
        raise ValueError(f"{folder}/configs has no prompts")
    return cases


def _pictures(root: Path, config: Path, where: dict) -> list[Path]:
    """The pictures that a config speaks of: one that it names, or all of its style."""
    name = str(where.get("input_name", ""))
    inside = Path(str(where.get("validation_input_path", ""))).name
    if name:
        for parent in (root / inside, root / Path(name).parent, root / config.stem):
            named = [f for f in _images(parent) if f.stem == Path(name).name or f.name == name]
            if named:
                return named[:1]
    for style in (name, inside, config.stem):
        if style and _images(root / style):
            return _images(root / style)
    raise ValueError(f"{config.name}: no pictures in img/ for {name or config.stem!r}")


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES)


def job(case: Case, size: int) -> Job:
    """The case at size x size; ValueError where an interaction was drawn at another size."""
    common = {"id": case.id, "group": case.group, "motion": case.prompt, "negative": case.negative}
    common["seed"] = crc32(case.id.encode())
    if case.interaction is None:
        picture = ImageOps.fit(to_picture(case.picture), (size, size), Image.Resampling.LANCZOS)
        return Job(picture=picture, text=case.prompt, **common)
    mine = Instructions.load(case.interaction)
    picture = mine.image.picture if mine.image else to_picture(case.picture)
    if picture.size != (size, size):
        raise ValueError(
            f"{case.interaction.name} was drawn on {picture.width} x {picture.height} pixels; "
            f"this model needs {size} x {size}"
        )
    if mine.trajectory is not None:
        common["drags"] = with_masks(mine.trajectory, picture).drags
    content = mine.content or ContentInstruction(case.prompt, (), strength=0.7)
    painted = {name: getattr(content, name) for name in ("text", "strokes", "strength")}
    return Job(picture=picture, **painted, **common)
