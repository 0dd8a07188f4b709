"""The table of checkpoints: what there is, under which licence, how large, and what it takes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Checkpoint:
    """One row. Sizes are of the files that are fetched, in GB; memory of a 16-frame clip, fp16."""

    name: str
    family: str  # module of ivkit.models
    what: str
    licence: str
    download_gb: float
    memory_gb: float
    text: bool  # takes a text condition
    ids: dict[str, str]  # part -> hub id; empty for what the package brings
    fallback: dict[str, str]  # part -> another id, where the first has gone
    few_step: bool = False


TABLE = {
    row.name: row
    for row in (
        Checkpoint(
            "storybook", "pia", "the embedded model: a small world of emoji scenes, 256 px",
            "Apache-2.0", 0.0, 1.0, True, {}, {},
        ),
        Checkpoint(
            "storybook-fast", "pia", "the same in 4 to 6 steps, guidance folded in",
            "Apache-2.0", 0.0, 1.0, True, {}, {}, few_step=True,
        ),
        Checkpoint(
            "pia", "pia", "Stable Diffusion 1.5 with PIA's motion adapter, 512 px: the paper's own",
            "CreativeML Open RAIL-M (SD 1.5), Apache-2.0 (PIA)", 4.5, 8.0, True,
            {
                "base": "stable-diffusion-v1-5/stable-diffusion-v1-5",
                "motion_adapter": "openmmlab/PIA-condition-adapter",
            },
            {"base": "Lykon/dreamshaper-8"},
        ),
    )
}  # fmt: skip
