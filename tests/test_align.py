"""Eq. 5: the form as printed, the residual form, and what a clip is aligned with."""

import pytest
import tiny
import torch

from ivkit.align import Align, ResidualAlign, align_frames, blended_target, load_align


def frames(n=3, seed=0):
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def trained(seed=1):
    torch.manual_seed(seed)
    module = ResidualAlign()
    torch.nn.init.normal_(module.conv.weight, std=0.3)
    return module.eval()


def test_as_printed_loses_the_picture():
    """v - x is all that Eq. 5 sees: the same difference gives the same output, whatever x."""
    module, v, x, far = Align(), frames(), frames(1, 2), 0.3
    assert torch.allclose(module(v, x), module(v + far, x + far), atol=1e-5)


def test_residual_form_begins_as_the_identity():
    v = frames()
    assert torch.equal(ResidualAlign()(v, frames(1, 2)), v)
    assert not torch.allclose(trained()(v, frames(1, 2)), v)


def test_slices_do_not_matter():
    module, v, x = trained(), frames(5), frames(1, 2)
    whole, sliced = align_frames(module, v, x, 5), align_frames(module, v, x, 2)
    assert torch.allclose(whole, sliced, atol=1e-6) and whole.abs().max() <= 1


def test_the_target_follows_lam():
    x, x_edit = frames(1), frames(3, 2)
    assert torch.equal(
        blended_target(x, x_edit, torch.ones(4, 1, 1, 1, 1)), x.expand(3, -1, -1, -1)
    )
    assert torch.equal(blended_target(x, x_edit, torch.zeros(4, 1, 1, 1, 1)), x_edit)
    region = torch.ones(4, 1, 1, 8, 8)
    region[..., :4] = 0  # the left half follows the edit
    mixed = blended_target(x, x_edit, region)
    assert torch.allclose(mixed[..., :6], x_edit[..., :6], atol=1e-6)
    assert torch.allclose(mixed[..., 10:], x.expand_as(x_edit)[..., 10:], atol=1e-6)


@pytest.mark.parametrize("reading", ["paired", "shared"])
def test_lam_one_is_the_unedited_clip_with_alignment_too(reading):
    pipe = tiny.pipeline("storybook")
    pipe.align = trained()
    options = {"edited": tiny.picture(1), "reading": reading, "progress": False}
    run = pipe.video(tiny.picture(), "the boat moves right", lam=1.0, **options)
    plain = pipe.video(tiny.picture(), "the boat moves right", lam=1.0, align=False, **options)
    assert (run.frames == run.unedited).all()
    assert (run.frames != plain.frames).any()


def test_a_damaged_module_is_named(tmp_path):
    assert load_align(tmp_path) is None
    (tmp_path / "align").mkdir()
    (tmp_path / "align" / "align.safetensors").write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"align\.safetensors holds no alignment module"):
        load_align(tmp_path)
