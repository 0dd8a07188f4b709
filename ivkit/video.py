"""P_video: the denoising loop that blends two predictions at each step (Eq. 2 to 4).

Two readings of Eq. 4. `paired`, the paper's words: a reference chain z steps on its own eps, an
edited chain z' steps on eps_hat. `shared`: one latent, evaluated under both conditions, steps on
eps_hat. Both begin with the same noise.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .blend import blend_in, noised
from .models.protocol import Prediction, alone
from .models.sampling import check_weights, forgets, levels, scaled, stepped
from .run import Run, Step
from .trace import ROWS, Record


def denoise(s: Run) -> Iterator[Step]:
    """Yields after every step. A new call with the same run goes on where it stands."""
    while not s.finished:
        for _ in s.settle():
            pass
        step = advance(s)
        if step is not None:
            yield step


@alone
def advance(s: Run) -> Step | None:
    """One step; None where another thread took the last. Cut short, it leaves the run as it was."""
    if s.finished:
        return None
    s.follow()
    check_weights(s.model, s.reference.changed)
    if s.skipped is not None and not overwritten(s, s.index):  # something was changed since
        take(s, s.index - 1, *s.skipped)
    return Step(take(s, s.index, s.scheduler, s.z), s)


def take(s: Run, i: int, scheduler, z: Tensor) -> Record:
    """Step i of a scheduler, from z."""
    t, lam, before = scheduler.timesteps[i], s.lam[i].to(z.device), (scheduler, z)
    z = dual_clock(s, i, z)
    skip = s.settings.skip_zero and overwritten(s, i + 1) and forgets(scheduler, t, z, i)
    if skip:
        record = Record(i, float(t), *levels(scheduler, t, i), s.lam[i].cpu().clone(),
                        {"z_edit": z.detach()}, overwritten=True)  # fmt: skip
        out = torch.zeros_like(z)
    else:
        record, out = predicted(s, i, t, lam, z)
    # Eq. 3: the step is taken on R(eps) = eps_hat where it would be taken on eps.
    scheduler, after = stepped(scheduler, out, t, z, i, s.reference.seed, s.reference.eta)
    if skip or i + 1 == s.num_steps:
        after = dual_clock(s, i + 1, after)
    del s.trace.records[i:]  # of a step that an interrupt cut short
    s.trace.append(record)
    new = {"scheduler": scheduler, "z": after, "skipped": before if skip else None}
    vars(s).update(last=record, index=i + 1, **new)  # in one go
    return record


def predicted(s: Run, i: int, t: Tensor, lam: Tensor, z: Tensor) -> tuple[Record, Tensor]:
    """What there is of step i at z, and the prediction that is stepped on."""
    eps, eps_edit = evaluate(s, i, t, lam, z)
    level, unit = levels(s.scheduler, t, i), "native"
    if eps is None:  # lam is 0 everywhere
        eps_hat = eps_edit.guided
    elif eps_edit is None:  # lam is 1 everywhere, or nothing is edited
        eps_hat = eps.guided
    else:  # Eq. 4
        z_ref = s.reference.z[i].to(z.device) if s.settings.reading == "paired" else z
        pair = eps.guided, eps_edit.guided
        eps_hat, unit = blend_in(s.settings.blend_in, *pair, lam, z_ref, z, level)
    return _record(s, i, t, z, eps, eps_edit, eps_hat, level, unit), eps_hat


def evaluate(
    s: Run, i: int, t: Tensor, lam: Tensor, z: Tensor
) -> tuple[Prediction | None, Prediction | None]:
    """eps and eps' of step i; None for a branch whose weight is zero everywhere."""
    need = not s.settings.skip_zero or bool((lam > 0).any())
    need_edit = not s.settings.skip_zero or bool((lam < 1).any())
    ref, now = s.reference, s.edit_at(i)
    if s.settings.skip_zero and now.same:  # are both branches one so far?
        if s.settings.reading == "shared" or (len(ref.z) > i and torch.equal(ref.z[i], z.cpu())):
            need, need_edit = True, False
    z_in = scaled(s.scheduler, z, t)
    edit = (z_in, now.condition)
    if s.settings.reading == "shared":
        found = predict(s, t, [(z_in, now.reference)] * need + [edit] * need_edit)
        return found[0] if need else None, found[-1] if need_edit else None
    if need and need_edit and s.settings.batch and len(ref.out) == i:
        z_ref = scaled(ref.scheduler, ref.latest, t)
        eps, eps_edit = predict(s, t, [(z_ref, ref.condition(i)), edit])
        ref.push(eps)
        return eps, eps_edit
    eps = ref.at(i) if need else None
    return eps, predict(s, t, [edit])[0] if need_edit else None


def predict(s: Run, t: Tensor, branches: list) -> list[Prediction]:
    """The branches' predictions, each branch a (scaled latent, condition)."""
    if s.settings.batch:
        z, conditions = zip(*branches, strict=True)
        return s.model.predict(torch.stack(z), t, list(conditions))
    return [s.model.predict(z[None], t, [condition])[0] for z, condition in branches]


def dual_clock(s: Run, i: int, z: Tensor) -> Tensor:
    """z' before step i, with the noised warped clip put back where things move (Time-to-Move).

    z' <- (1 - w) z' + w noise(V_warped), w = (1 - lam) mask, so that lam = 1 still means no edit;
    in the first, weak steps the mask is 1 everywhere. After the last step no noise is left.
    """
    w = hold(s, i)
    if w is None:
        return z
    warped = s.edit_at(min(i, s.num_steps - 1)).drag
    if i < s.num_steps:
        warped = noised(s.scheduler, warped, s.reference.eps, s.scheduler.timesteps[i])
    return (1 - w) * z + w * warped


def hold(s: Run, i: int) -> Tensor | None:
    """The weight w of dual-clock before step i, (F, 1, h, w); None where it does not act."""
    k = min(i, s.num_steps - 1)
    edit = s.edit_at(k)
    if edit.drag is None or i >= edit.strong:
        return None
    mask = edit.mask if i >= edit.weak else torch.ones_like(edit.mask)
    return (1 - s.lam[k].to(mask.device)) * mask


def overwritten(s: Run, i: int) -> bool:
    """Whether nothing of z' is left before step i, so that the step before need not be taken."""
    w = hold(s, i)
    return w is not None and bool((w == 1).all())


def _record(s: Run, i: int, t, z, eps, eps_edit, eps_hat, level, unit) -> Record:
    tensors, paired = {"z_edit": z, "out_hat": eps_hat}, s.settings.reading == "paired"
    if eps is not None:
        tensors["z_t"] = s.reference.z[i] if paired else z
        if paired:  # as it is kept, on the CPU
            eps = s.reference.out[i]
    for suffix, out in (("", eps), ("_edit", eps_edit)):
        if out is not None:
            tensors[f"out{suffix}_cond"] = out.cond
            tensors |= {} if out.uncond is None else {f"out{suffix}_uncond": out.uncond}
    scale, left = (eps_edit or eps).scale, ()
    if eps is not None and paired and not s.reference.whole:
        tensors["out"], left = tensors.pop("out_cond"), ROWS
    tensors = {name: value.detach() for name, value in tensors.items()}
    lam = s.lam[i].cpu().clone()
    return Record(i, float(t), *level, lam, tensors, scale, left, unit)
