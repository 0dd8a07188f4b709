"""What P_video carries from step to step, and the step that a person looks at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from PIL import Image
from torch import Tensor

from .models.protocol import Condition
from .pixels import to_pictures
from .sampling import Chain
from .trace import Record, Trace
from .validate import Index, check_index, checked

READINGS = ("paired", "shared")


@dataclass
class Edit:
    """What tells the edited branch from the reference."""

    condition: Condition  # x', for each frame where there is a drag
    drag: Tensor | None = None  # the warped clip's latents, (F, C, h, w), for dual-clock
    mask: Tensor | None = None  # cells in which things move, (F, 1, h, w), 0 or 1
    weak: int = 0  # before this step dual-clock acts everywhere,
    strong: int = 0  # before this one where things move; above the last, in the clip too


@dataclass
class Denoising:
    """What the loop carries from step to step: it can be left and taken up at any of them."""

    reference: Chain
    reading: str = "paired"
    skip_zero: bool = True  # do not evaluate a branch whose weight is zero everywhere
    batch: bool = False  # both branches in one call of the network
    on_change: Callable[..., None] | None = None
    edit: Edit | None = None
    lam: Tensor | None = None  # (steps, F or 1, 1, h or 1, w or 1)
    index: int = 0
    trace: Trace = field(default_factory=Trace)
    last: Record | None = None  # all there was of the latest step

    def __post_init__(self):
        self.model = self.reference.model
        shape = tuple(self.reference.eps.shape)
        self.scheduler = self.model.scheduler(self.reference.num_inference_steps, shape=shape)
        # z' in `paired`, the one latent in `shared`
        self.z = self.reference.z[0].to(self.reference.eps.device)

    @property
    def num_steps(self) -> int:
        return len(self.reference)

    @property
    def finished(self) -> bool:
        return self.index >= self.num_steps


def _edits():
    from .run import edits

    return [edits]


@dataclass
class Step:
    """A step just done. Tensors by name as in a trace: `step["eps_hat"]`, `step["x0"]`, ..., all of
    them, whatever the trace keeps."""

    record: Record
    state: Denoising = field(repr=False)

    def __getitem__(self, name: str):
        found = self.record[name]
        return found.cpu() if isinstance(found, Tensor) else found

    @property
    def index(self) -> int:
        return self.record.index

    @property
    def num_steps(self) -> int:
        return self.state.num_steps

    @checked
    def preview(self, frame: Index = -1) -> Image.Image:
        """One frame of the clip as it is foreseen now, decoded from x0: PIL RGB."""
        model = self.state.model
        check_index("frame", frame, len(self.state.z))
        return to_pictures(model.preview(self["x0"], frame)[None])[0]

    @checked(options=_edits)
    def change(self, **changes) -> None:
        """Change `edited`, `drags`, `pins`, `camera`, `lam` or `motion` from the next step on.

        Raises what `Pipeline.video` would for the same argument; then nothing is changed.
        """
        if self.state.finished:
            raise ValueError("the clip is finished: start another run to change it")
        self.state.on_change(**changes)
