"""What happened at each denoising step, by name.

    trace[4]["eps_hat"]      one step, float32 (F, C, h, w)
    trace["eps_hat"]         every step, (steps, F, C, h, w)

Kept for each step: `z_t` and `z_edit` (the latents of the two chains), and the network's native
outputs before guidance, `out_cond` and `out_uncond` (given x), `out_edit_cond` and
`out_edit_uncond` (given the edited x), and `out_hat` (the blend). Derived when asked for: `out` and
`out_edit`, which are guided, to the last bit; the same names with `eps` or `v` in place of `out`;
and the clean-picture estimates `x0` (of the blend), `x0_ref`, `x0_edit`.

`trace=` of `Pipeline.video` chooses what is kept, where and in which numbers: see `TraceOptions`.

Eq. 4, x_hat = lam x + (1 - lam) x_edit, holds in the unit that was blended, `trace[i].blended`, of
the tensors that `trace[i].terms` names. In other units, where z_t and z_edit differ, `x_hat` is
what the network would have put out for that blend: derived, and not that sum.

Where alpha_bar is 0 the latent is pure noise: eps is z itself and says nothing of the prediction,
and x0 cannot be had from an epsilon. There the derived tensor is all NaN, and
`trace[i].undefined(name)` is True.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from .models.protocol import guided
from .support.disk import write_tensors
from .support.validate import TEXT, Either, File, Integer, Kind, Number, TensorOf, checked, shown

KINDS = ("epsilon", "v_prediction", "sample", "flow_prediction")  # of prediction, as in diffusers
_X0 = {"x0": "out_hat", "x0_ref": "out", "x0_edit": "out_edit"}
_OUTS = ("out", "out_cond", "out_uncond", "out_edit", "out_edit_cond", "out_edit_uncond", "out_hat")
TERMS = {  # of Eq. 4, in each unit: x, x_edit and x_hat
    "v": ("v", "v_edit", "v_hat"),
    "eps": ("eps", "eps_edit", "eps_hat"),
    "x0": ("x0_ref", "x0_edit", "x0"),
}
#: the unit of a network's own output
NATIVE = {"epsilon": "eps", "v_prediction": "v", "flow_prediction": "v", "sample": "x0"}
#: every name that a step may hold
NAMES = (
    "z_t",
    "z_edit",
    *(n.replace("out", to, 1) for to in ("out", "eps", "v") for n in _OUTS),
    *_X0,
)
#: of the reference branch, before guidance
ROWS = tuple(n for n in NAMES if n.endswith("cond") and "edit" not in n)


Level = Annotated[float, Number(0)]
Native = Annotated[Tensor, TensorOf()]


@checked
def convert(
    out: Native,
    z: Native,
    signal: Level,
    noise: Level,
    kind: Literal[KINDS],
    to: Literal["eps", "v", "x0"],
) -> Tensor:
    """A native output as `to` = "eps", "v" or "x0"; z = signal x0 + noise eps.

    kind: the scheduler's prediction type, "epsilon", "v_prediction", "sample" or "flow_prediction".
    NaN where it is undefined (signal = 0, see above).
    """
    z = z.to(out.device)
    norm = (signal**2 + noise**2) ** 0.5  # 1 where the scheduler keeps the variance
    a, s, zn = signal / norm, noise / norm, z / norm
    if kind == "v_prediction":
        x0 = a * zn - s * out
        eps = a * out + s * zn if a else torch.full_like(z, torch.nan)
    elif kind == "flow_prediction":
        x0, eps = z - noise * out, z + signal * out
    elif kind == "sample":
        x0, eps = out, (zn - a * out) / s
    else:
        eps = out
        x0 = (zn - s * out) / a if a else torch.full_like(z, torch.nan)
    if to == "v":
        return out if kind in ("v_prediction", "flow_prediction") else a * eps - s * x0
    return x0 if to == "x0" else eps


@checked
@dataclass
class Record:
    """One step: numbers as attributes, tensors by name."""

    index: int
    t: float
    signal: float  # z = signal x0 + noise eps; for a DDPM schedule signal = sqrt(alpha_bar)
    noise: float
    kind: Literal[KINDS]
    lam: Tensor  # (F or 1, 1, h or 1, w or 1), the lam in force
    tensors: dict[str, Tensor] = field(default_factory=dict)
    guidance: Tensor | None = None  # the scale, broadcasts to (F, 1, 1, 1); None: not guided
    left: tuple[Literal[NAMES], ...] = ()  # names that the step had and that were not kept
    blended: Literal[(*TERMS, "native")] = "native"  # the unit of Eq. 4 at this step
    overwritten: bool = False  # by dual-clock before the next step: nothing was evaluated

    def __post_init__(self):
        if self.blended == "native":
            self.blended = NATIVE[self.kind]

    def __repr__(self) -> str:
        return f"Record(step {self.index}, t = {self.t:g}: {', '.join(self.tensors)})"

    @property
    def alpha_bar(self) -> float:
        """The variance schedule's alpha_bar_t of Eq. 2."""
        return self.signal**2 / (self.signal**2 + self.noise**2)

    @property
    def terms(self) -> tuple[str, str, str]:
        """The names of x, x_edit and x_hat in the unit that was blended. Of these Eq. 4 holds."""
        return TERMS[self.blended]

    def names(self) -> list[str]:
        """Every name that can be asked for at this step."""
        found = [name for name in NAMES if self._find(name) is not None]
        return [*found, "lam"]

    def __contains__(self, name: str) -> bool:
        return name == "lam" or self._find(name) is not None

    @checked
    def __getitem__(self, name: str) -> Tensor:
        """float32 (F, C, h, w), a copy; KeyError where that branch was not evaluated or kept."""
        if name in ("t", "index", "alpha_bar"):
            return getattr(self, name)
        find = (lambda: self.lam) if name == "lam" else self._find(name)
        if find is not None:
            return find().clone()
        self.check(name)
        branch = f" ({self.missing(name)})" if name in NAMES else ""
        known = ", ".join(self.names())
        raise KeyError(f"step {self.index} holds no {shown(name)}{branch}; it holds: {known}")

    @checked
    def missing(self, name: Literal[(*NAMES, "lam")]) -> str:
        """In words, why this step has nothing to show of a tensor; "" where it has."""
        if name in self:
            return "undefined, ᾱ = 0" if self.undefined(name) else ""
        return "overwritten, not evaluated" if self.overwritten else "not evaluated, weight 0"

    def check(self, *names: str) -> None:
        """KeyError, which says how to keep it, where one of the names was not kept."""
        for name in names:
            if name in self.left:
                raise KeyError(
                    f"step {self.index} did not keep {name!r}: make the clip with trace={name!r}, "
                    "or with trace=True for all there is"
                )

    def _find(self, name: str) -> Callable[[], Tensor] | None:
        """What computes a tensor from those that are kept; None where it cannot be had."""
        if name in self.tensors:
            return self.tensors[name].float
        if name not in NAMES or name.startswith("z"):
            return None
        to = "x0" if name in _X0 else name.partition("_")[0]
        if to == "out":
            return self._guided(name)
        out = _X0.get(name) or name.replace(to, "out", 1)
        native = self._find(out)
        if native is None or NATIVE[self.kind] == to:
            return native
        z = self.tensors.get("z_edit" if out.startswith(("out_edit", "out_hat")) else "z_t")
        if z is None:
            return None
        return lambda: convert(native(), z.float(), self.signal, self.noise, self.kind, to)

    def _guided(self, name: str) -> Callable[[], Tensor] | None:
        """A branch's prediction, by classifier-free guidance of its two rows."""
        cond, uncond = (self.tensors.get(f"{name}{row}") for row in ("_cond", "_uncond"))
        if cond is None or (uncond is None) != (self.guidance is None):
            return None
        if uncond is None:
            return cond.float
        return lambda: guided(cond.float(), uncond.float(), self.guidance.to(cond.device))

    def undefined(self, name: str) -> bool:
        """True where `name` cannot be derived because alpha_bar is 0 at this step."""
        return not name.startswith(("z", "out")) and bool(torch.isnan(self[name]).all())


@dataclass(frozen=True)
class TraceOptions:
    """What a trace keeps of each step, where, and in which numbers.

        pipe.video(picture, motion, trace=["x0", "eps_hat"])
        pipe.video(picture, motion, trace=iv.TraceOptions("eps*", dtype=torch.float16))

    Attributes:
        names: True keeps all, False nothing; or a name, a pattern such as "eps*", a list of these,
            or a function from a name to whether it is kept. What follows from the tensors that are
            kept is not kept beside them: it can be asked for all the same.
        device: where they are kept. dtype: None keeps float32; in float16 or bfloat16 the values,
            and what is derived of them, have that type's rounding.

    Raises ValueError or TypeError where a name is not known, or the others are of no such kind.
    """

    names: bool | str | Sequence[str] | Callable[[str], bool] = True
    device: str | torch.device = "cpu"
    dtype: torch.dtype | None = None

    def __post_init__(self):
        names = (self.names,) if isinstance(self.names, str) else self.names
        if callable(names):
            try:
                names = tuple(name for name in NAMES if self.names(name))
            except Exception as error:
                raise ValueError(
                    f"trace has a function as its names that fails: {shown(error)}"
                ) from None
        if not isinstance(names, (bool, list, tuple, set, frozenset)):
            raise TypeError(
                "trace, or names, must be True, False, a name, a list or a function, got "
                f"{shown(names)}"
            )
        for name in () if isinstance(names, bool) else names:
            if not isinstance(name, str) or not fnmatch.filter(NAMES, name):
                raise ValueError(
                    f"trace has {shown(name)} in its names, which no step holds; there are: "
                    f"{', '.join(NAMES)}"
                )
        try:
            device = torch.device(self.device)
            torch.empty(0, device=device)
        except (RuntimeError, TypeError, ValueError, AssertionError):
            raise ValueError(
                f"device of a trace must be one of this machine, got {shown(self.device)}"
            ) from None
        known = (torch.float32, torch.float16, torch.bfloat16)
        if not (self.dtype is None or any(self.dtype is dtype for dtype in known)):
            raise ValueError(
                f"dtype of a trace must be float32, float16 or bfloat16, got {shown(self.dtype)}"
            )
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "device", device)

    @classmethod
    def of(cls, trace) -> TraceOptions:
        """The options themselves, or their `names`."""
        return trace if isinstance(trace, cls) else cls(trace)

    def wants(self, name: str) -> bool:
        if isinstance(self.names, bool):
            return self.names
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.names)

    @property
    def wanted(self) -> list[str]:
        return [name for name in NAMES if self.wants(name)]

    @property
    def whole(self) -> bool:
        """Whether a row of the reference branch before guidance is kept."""
        return any(name in ROWS for name in self.wanted)

    def keep(self, record: Record) -> Record:
        """The record with no more than was asked for."""
        had, kept = record.names(), dataclasses.replace(record, tensors={})
        for name in dict.fromkeys((*record.tensors, *had)):  # first what others are derived from
            if self.wants(name) and name not in kept:
                kept.tensors[name] = record._find(name)().detach().to(self.device, self.dtype)
        kept.left = (*record.left, *(name for name in had if name not in kept))
        return kept


def _some_steps(value: Any) -> slice:
    value.indices(1)
    return value


Step = Annotated[
    int | slice | str,
    Either(
        Integer(), Kind("a slice of integers", _some_steps), Kind("a name", TEXT.take, TypeError)
    ),
]


class Trace:
    """The records of a run, in order. Iterates, slices and counts like a list."""

    @checked
    def __init__(self, records: list[Record] | None = None, options: TraceOptions | None = None):
        self.records, self.options = list(records or ()), options or TraceOptions()

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        return f"Trace({len(self)} steps: {', '.join(self.names())})"

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    @checked
    def __getitem__(self, key: Step):
        """A step (int), some steps (slice), or one name over all steps (steps, F, C, h, w).

        IndexError where there is no such step, KeyError where one of the steps has no such name.
        """
        if isinstance(key, int) and not -len(self) <= key < len(self):
            raise IndexError(f"key must be one of {len(self)} steps, got {key}")
        if isinstance(key, str) and not self.records:
            raise KeyError(f"the trace has no steps, and so holds no {shown(key)}")
        if isinstance(key, str):
            return torch.stack([record[key] for record in self.records])
        if isinstance(key, slice):
            return Trace(self.records[key])
        return self.records[key]

    def names(self) -> list[str]:
        """Names that every step holds."""
        first, *rest = [record.names() for record in self.records] or [[]]
        return [name for name in first if all(name in names for names in rest)]

    def append(self, record: Record) -> None:
        """Keep of it what `options` ask for."""
        self.records.append(self.options.keep(record))

    @property
    def nbytes(self) -> int:
        """Memory of the tensors that are kept; what two of them share counts once."""
        kept = [t.untyped_storage() for record in self.records for t in record.tensors.values()]
        return sum({storage.data_ptr(): storage.nbytes() for storage in kept}.values())

    @checked
    def save(self, path: File) -> None:
        """Write as safetensors; `Trace.load` reads it back, tensor for tensor."""
        tensors = {f"{i}.lam": r.lam for i, r in enumerate(self.records)}
        for i, record in enumerate(self.records):
            kept = record.tensors | {"guidance": record.guidance}
            tensors |= {f"{i}.{name}": v for name, v in kept.items() if v is not None}
        tensors = {name: value.clone() for name, value in tensors.items()}
        said = {name: [getattr(r, name) for r in self.records] for name in _SAID}
        said["steps"] = [[r.index, r.t, r.signal, r.noise, r.kind] for r in self.records]
        metadata = {name: json.dumps(value) for name, value in said.items()}
        write_tensors(path, tensors, {"ivkit_trace": "1", **metadata})

    @classmethod
    @checked
    def load(cls, path: File) -> Trace:
        """Read what `save` wrote. ValueError where the file is no trace or is damaged."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                steps = _said(metadata, "steps")
                more = {name: _said(metadata, name, steps) for name in _SAID if name in metadata}
                records = []
                for i, step in enumerate(steps):
                    said = {name: values[i] for name, values in more.items()}
                    records.append(Record(*step, lam=file.get_tensor(f"{i}.lam"), **said))
                if [record.index for record in records] != [*range(len(steps))]:
                    raise ValueError("its steps are not in order")
                for key in file.keys():  # noqa: SIM118 (a safetensors file is no dict)
                    i, name = _place(key, len(records))
                    if name == "guidance":
                        records[i].guidance = file.get_tensor(key)
                    elif name != "lam":
                        records[i].tensors[name] = file.get_tensor(key)
        except (SafetensorError, OSError, TypeError, ValueError, LookupError) as error:
            why = " ".join(str(error).split())[:200]
            raise ValueError(f"{path} is not a whole ivkit trace ({why})") from None
        return cls(records)


#: what a file says of each step beside `steps`; older files say less
_SAID = ("left", "blended", "overwritten")


def _said(metadata: dict[str, str], name: str, steps: list | None = None) -> list:
    try:
        found = [*json.loads(metadata[name])]
        if steps is not None and len(found) != len(steps):
            raise ValueError
        return found
    except (TypeError, ValueError, LookupError, RecursionError):
        raise ValueError(f"what it says of {name!r} is damaged") from None


def _place(key: str, count: int) -> tuple[int, str]:
    """The step and the name that a tensor is kept under."""
    found = re.fullmatch(r"([0-9]{1,9})\.([a-z]\w*)", key)
    if found is None or int(found[1]) >= count:
        raise ValueError(f"it holds {key[:50]!r}")
    return int(found[1]), found[2]
