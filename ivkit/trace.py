"""What happened at each denoising step, by name.

    trace[4]["eps_hat"]      one step, float32 (F, C, h, w)
    trace["eps_hat"]         every step, (steps, F, C, h, w)

Kept for each step: `z_t` and `z_edit` (the latents of the two chains), and the network's native
outputs `out` (given x), `out_edit` (given the edited x), `out_hat` (their blend), of the first two
also `_uncond` and `_cond`, before guidance. Derived when asked for: the same names with `eps` or
`v` in place of `out`, and the clean-picture estimates `x0` (of the blend), `x0_ref`, `x0_edit`.

Where alpha_bar is 0 the latent is pure noise: eps is z itself and says nothing of the prediction,
and x0 cannot be had from an epsilon. There the derived tensor is all NaN, and
`trace[i].undefined(name)` is True.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .disk import write_tensors

KINDS = ("epsilon", "v_prediction", "sample", "flow_prediction")  # of prediction, as in diffusers
_X0 = {"x0": "out_hat", "x0_ref": "out", "x0_edit": "out_edit"}


def convert(out: Tensor, z: Tensor, signal: float, noise: float, kind: str, to: str) -> Tensor:
    """A native output as `to` = "eps", "v" or "x0"; z = signal x0 + noise eps.

    kind: the scheduler's prediction type, "epsilon", "v_prediction", "sample" or "flow_prediction".
    NaN where it is undefined (signal = 0, see above).
    """
    norm = (signal**2 + noise**2) ** 0.5  # 1 where the scheduler keeps the variance
    a, s, zn = signal / norm, noise / norm, z / norm
    if kind == "v_prediction":
        x0 = a * zn - s * out
        eps = a * out + s * zn if a else torch.full_like(z, torch.nan)
    elif kind == "flow_prediction":
        x0, eps = z - noise * out, z + signal * out
    elif kind == "sample":
        x0, eps = out, (zn - a * out) / s
    elif kind == "epsilon":
        eps = out
        x0 = (zn - s * out) / a if a else torch.full_like(z, torch.nan)
    else:
        raise ValueError(f"kind of prediction {kind!r} is not known")
    if to == "v":
        return out if kind in ("v_prediction", "flow_prediction") else a * eps - s * x0
    return x0 if to == "x0" else eps


@dataclass
class Record:
    """One step: numbers as attributes, tensors by name."""

    index: int
    t: float
    signal: float  # z = signal x0 + noise eps; for a DDPM schedule signal = sqrt(alpha_bar)
    noise: float
    kind: str
    lam: Tensor  # (F or 1, 1, h or 1, w or 1), the lam in force
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Record(step {self.index}, t = {self.t:g}: {', '.join(self.tensors)})"

    @property
    def alpha_bar(self) -> float:
        """The variance schedule's alpha_bar_t of Eq. 2."""
        return self.signal**2 / (self.signal**2 + self.noise**2)

    def names(self) -> list[str]:
        """Every name that can be asked for at this step."""
        outs = [n for n in self.tensors if n.startswith("out")]
        derived = [n.replace("out", to, 1) for to in ("eps", "v") for n in outs]
        return [*self.tensors, *derived, *(n for n, out in _X0.items() if out in outs), "lam"]

    def __contains__(self, name: str) -> bool:
        return name in self.names()

    def __getitem__(self, name: str) -> Tensor:
        """float32 (F, C, h, w); KeyError where that branch was not evaluated."""
        if name in ("lam", "t", "index", "alpha_bar"):
            return getattr(self, name)
        if name in self.tensors:
            return self.tensors[name]
        out = _X0.get(name) or "out" + name.partition("_")[1] + name.partition("_")[2]
        to = "x0" if name in _X0 else name.partition("_")[0]
        if out not in self.tensors or to not in ("x0", "eps", "v"):
            branch = " (its weight was zero there)" if out.startswith("out") else ""
            known = ", ".join(self.names())
            raise KeyError(f"step {self.index} holds no {name!r}{branch}; it holds: {known}")
        z = self.tensors["z_edit" if out.startswith(("out_edit", "out_hat")) else "z_t"]
        return convert(self.tensors[out], z, self.signal, self.noise, self.kind, to)

    def undefined(self, name: str) -> bool:
        """True where `name` cannot be derived because alpha_bar is 0 at this step."""
        return name not in self.tensors and bool(torch.isnan(self[name]).all())


class Trace:
    """The records of a run, in order. Iterates, slices and counts like a list."""

    def __init__(self, records: list[Record] | None = None):
        self.records = records or []

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        return f"Trace({len(self)} steps: {', '.join(self.names())})"

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def __getitem__(self, key: int | slice | str):
        """A step (int), some steps (slice), or one name over all steps (steps, F, C, h, w)."""
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
        self.records.append(record)

    def save(self, path) -> None:
        """Write as safetensors; `Trace.load` reads it back, tensor for tensor."""
        facts = [[r.index, r.t, r.signal, r.noise, r.kind] for r in self.records]
        tensors = {f"{i}.lam": r.lam for i, r in enumerate(self.records)}
        for i, record in enumerate(self.records):
            tensors |= {f"{i}.{name}": value for name, value in record.tensors.items()}
        tensors = {name: value.clone() for name, value in tensors.items()}
        write_tensors(path, tensors, {"ivkit_trace": "1", "steps": json.dumps(facts)})

    @classmethod
    def load(cls, path) -> Trace:
        """Read what `save` wrote. ValueError where the file is no trace or is damaged."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                facts = _facts((file.metadata() or {}).get("steps", "none"))
                records = [
                    Record(*fact, lam=file.get_tensor(f"{i}.lam")) for i, fact in enumerate(facts)
                ]
                for key in file.keys():  # noqa: SIM118 (a safetensors file is no dict)
                    i, name = _place(key, len(records))
                    if name != "lam":
                        records[i].tensors[name] = file.get_tensor(key)
        except (SafetensorError, OSError, TypeError, ValueError) as error:
            why = " ".join(str(error).split())[:200]
            raise ValueError(f"{path} is not a whole ivkit trace ({why})") from None
        return cls(records)


def _facts(text: str) -> list[list]:
    """The numbers of each step, as `Trace.save` wrote them; ValueError where they are others."""
    try:
        facts = json.loads(text)
        for i, (index, t, signal, noise, kind, *_) in enumerate(facts):
            numbers = [type(value) in (int, float) for value in (t, signal, noise)]
            if index != i or not all(numbers) or kind not in KINDS:
                raise ValueError
            if not all(math.isfinite(value) for value in (t, signal, noise)):
                raise ValueError
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise ValueError("its steps are damaged") from None
    return facts


def _place(key: str, count: int) -> tuple[int, str]:
    """The step and the name that a tensor is kept under."""
    found = re.fullmatch(r"([0-9]{1,9})\.([a-z]\w*)", key)
    if found is None or int(found[1]) >= count:
        raise ValueError(f"it holds {key[:50]!r}")
    return int(found[1]), found[2]
