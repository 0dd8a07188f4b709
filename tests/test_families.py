"""Every family against its own stock diffusers pipeline, and a drag through each of them."""

import io
import sys
import types

import diffusers
import numpy as np
import pytest
import tiny
import torch
from families import FAMILIES, NAMES
from PIL import Image

import ivkit as iv
from ivkit.models.table import TABLE, Checkpoint
from ivkit.pipeline import Pipeline

MOTION = "the boat moves right"


@pytest.fixture(autouse=True)
def _no_ftfy(monkeypatch):
    """The stock Wan pipeline calls ftfy, which is not installed: plain text it leaves as it is."""
    import diffusers.pipelines.wan.pipeline_wan_i2v as stock

    monkeypatch.setattr(stock, "prompt_clean", lambda text: text)
    assert sys.modules[stock.__name__] is stock


def clip(name, picture, **options):
    options = {"num_inference_steps": 3, "progress": False, "posterior": "sample", **options}
    return Pipeline(FAMILIES[name].model()).video(picture, MOTION, **options)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("name", NAMES)
def test_both_ends_of_lam_are_the_stock_pipeline(name, guidance):
    """lam = 1 is the stock clip of the picture; lam = 0 the stock clip of the edited picture."""
    family = FAMILIES[name]
    one, other = family.picture(0), family.picture(1)
    options = {"guidance_scale": guidance, "seed": 7}
    run = clip(name, one, edited=other, lam=1.0, **options)
    theirs = family.stock(run, one, MOTION, 3, guidance)
    # A replaced first frame is led to the picture by a timestep that UniPC rounds.
    close = 5e-4 if name == "svd" else 1e-4  # SVD begins at a sigma of 700
    first = 5e-3 if name == "wan-ti2v" else close
    torch.testing.assert_close(run.state.z[:1], theirs[:1], atol=first, rtol=0)
    torch.testing.assert_close(run.state.z[1:], theirs[1:], atol=close, rtol=1e-4)
    edited = clip(name, other, edited=one, lam=0.0, **options)
    torch.testing.assert_close(edited.state.z, run.state.z, atol=1e-4, rtol=1e-4)
    assert (run.state.z - clip(name, other, **options).state.z).abs().max() > 5e-3


@pytest.mark.parametrize("name", ["wan-2.1", "wan-2.2", "wan-ti2v"])
def test_the_same_seed_is_the_same_clip(name):
    """Where the stock pipeline draws nothing before the noise, the seed alone is enough."""
    family = FAMILIES[name]
    run = clip(name, family.picture(), seed=11, guidance_scale=2.0)
    theirs = family.stock(run, family.picture(), MOTION, 3, 2.0, seed=11)
    torch.testing.assert_close(run.state.z[1:], theirs[1:], atol=1e-4, rtol=1e-4)


def drag_of(family):
    w, h = family.size
    mask = np.zeros((h, w), bool)
    mask[h // 4 : h // 2, : w // 4] = True
    return iv.Drag(path=[(w / 8, h / 3), (w / 8 + w / 2, h / 3)], mask=mask)


@pytest.mark.parametrize("name", NAMES)
def test_a_drag_moves_what_it_should_and_lam_one_undoes_it(name):
    family = FAMILIES[name]
    plain = clip(name, family.picture())
    moved = clip(name, family.picture(), drags=[drag_of(family)], lam=0.0)
    assert (moved.state.z - plain.state.z)[1:].abs().max() > 0.02
    assert moved.frames.shape == (family.num_frames, *family.size[::-1], 3)
    undone = clip(name, family.picture(), drags=[drag_of(family)], lam=1.0)
    torch.testing.assert_close(undone.state.z, plain.state.z, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_lam_inside_a_region_leaves_the_others_prediction_alone(name):
    family = FAMILIES[name]
    frames, _, h, w = clip(name, family.picture()).state.z.shape
    lam = np.ones((h, w))
    lam[: h // 2, : w // 2] = 0
    run = clip(name, family.picture(), edited=family.picture(1), lam=lam, reading="shared")
    step, outside = run.trace[0], torch.from_numpy(lam == 1)
    assert torch.equal(step["out_hat"][..., outside], step["out"][..., outside])
    assert torch.equal(step["out_hat"][..., ~outside], step["out_edit"][..., ~outside])
    assert not torch.equal(step["out"][1:], step["out_edit"][1:])


@pytest.mark.parametrize("name", NAMES)
def test_batched_and_one_by_one_agree(name):
    family = FAMILIES[name]
    options = {"edited": family.picture(1), "lam": 0.4}
    batched = clip(name, family.picture(), batch=True, **options)
    single = clip(name, family.picture(), batch=False, **options)
    torch.testing.assert_close(batched.state.z, single.state.z, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_every_latent_frame_can_be_foreseen(name):
    family = FAMILIES[name]
    pipe = Pipeline(family.model())
    for step in pipe.denoise(family.picture(), MOTION, num_inference_steps=2):
        assert step.preview().size == family.size


@pytest.mark.parametrize("name", ["wan-ti2v", "ltx"])
def test_the_first_frame_is_the_picture_itself(name):
    family = FAMILIES[name]
    run = clip(name, family.picture(), edited=family.picture(1), lam=0.0, posterior="mode")
    given = run.state.edit.condition.rows["given"][0]
    torch.testing.assert_close(run.state.z[:1], given, atol=1e-2, rtol=1e-2)
    with pytest.raises(ValueError, match="mechanism must be both or dual-clock for tiny"):
        clip(name, family.picture(), mechanism="condition")


@pytest.mark.parametrize(
    "name, options, match",
    [
        ("svd", {"motion_scale": 400}, r"motion_scale must be an integer in \[0, 255\]"),
        ("svd", {"size": (30, 16)}, "size must be multiples of 64 pixels"),
        ("wan-2.1", {"num_frames": 16}, "such as 13 or 17, got 16"),
        ("cogvideox", {"num_frames": 8}, "such as 1 or 9, got 8"),
        ("wan-2.1", {"size": (24, 16)}, "multiples of 16"),
        ("ltx", {"guidance_scale": -1}, "guidance_scale must be"),
    ],
)
def test_bad_input_is_one_sentence(name, options, match):
    with pytest.raises(ValueError, match=match):
        clip(name, FAMILIES[name].picture(), **options)


def test_a_family_without_pictures_says_who_draws():
    with pytest.raises(ValueError, match=r"say who draws, as in ivkit.load\('tiny', pictures='sd'"):
        Pipeline(FAMILIES["svd"].model()).image("a boat")


def test_another_model_draws_at_the_clips_size():
    family = FAMILIES["svd"]
    pipe = Pipeline(family.model(), tiny.model())
    picture = pipe.image("a boat")
    stroke = iv.Stroke(points=[(8, 8)], width=4)
    edited = pipe.image("a red sun", picture, strokes=[stroke])
    assert picture.size == edited.size == family.size
    run = pipe.video(picture, "", edited=edited, num_inference_steps=2, progress=False)
    assert run.frames.shape == (4, 64, 64, 3)


def test_a_text_that_is_not_read_is_said_to_be():
    with pytest.warns(UserWarning, match="takes no text.*motion_scale says how much"):
        clip("svd", FAMILIES["svd"].picture())


@pytest.mark.parametrize("name", ["wan-2.1", "cogvideox", "svd"])
def test_a_drag_changes_the_condition_where_it_moves_and_nowhere_else(name):
    family = FAMILIES[name]
    pipe = Pipeline(family.model())
    options = {"num_inference_steps": 1, "lam": 0.0, "mechanism": "condition"}

    def given(*drags):
        run = pipe.video(family.picture(), MOTION, drags=drags, progress=False, **options)
        rows = run.state.edit.condition.rows
        return rows["latents" if name == "svd" else "given"][-1]

    still = given()
    drag = drag_of(family)
    same = iv.Drag(path=[drag.path[0], drag.path[0]], mask=drag.mask)
    torch.testing.assert_close(given(same), still)
    moved = ((given(drag) - still).abs() > 1e-4).any(1)
    assert not moved[0].any() and moved[-1].any()
    if name == "cogvideox":  # its autoencoder looks no further than its convolutions reach
        assert not moved[:, -1].any()  # the drag is in the picture's upper half


@pytest.mark.parametrize("name", ["wan-2.1", "cogvideox", "ltx"])
def test_half_precision_is_that_of_from_pretrained(name, tmp_path):
    from ivkit.models.common import cast

    net = FAMILIES[name].parts()["transformer"]
    net.save_pretrained(tmp_path)
    theirs = type(net).from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    cast(net, torch.bfloat16)

    def kinds(module):
        tensors = [*module.named_parameters(), *module.named_buffers()]
        return {key: value.dtype for key, value in tensors}

    assert kinds(net) == kinds(theirs)
    assert net.dtype == theirs.dtype == torch.bfloat16


@pytest.mark.parametrize("name", NAMES)
def test_the_studio_offers_how_much_moves_where_the_model_has_a_range_of_it(name):
    family = FAMILIES[name]
    pipe = Pipeline(family.model())
    studio = iv.Studio(pipe, family.picture(0), autosave=None)
    studio.panel["motion"].value, studio.panel["steps"].value = MOTION, 2
    studio.panel["frames"].value = family.num_frames
    studio.generate()
    studio.join(60)
    slider, known = studio.panel["motion_scale"], pipe.model.motion_scales
    assert studio.errors == [] and slider.disabled == (known is None)
    assert known is None or (slider.min, slider.max) == (known[0], known[-1])
    own = pipe.model.defaults["video"]["motion_scale"]
    assert pipe.last_run.settings.motion_scale == own
    again = pipe.run(studio.results[0].take.instructions, progress=False)
    assert again.settings.motion_scale == own
    assert (again.frames == studio.results[0].frames).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_explorer_shows_the_frame_that_a_latent_frame_stands_for(name):
    run = clip(name, FAMILIES[name].picture(0))
    explorer = iv.TraceExplorer(run)
    last = explorer.frame.max
    for f in (0, last):
        explorer.frame.value = f
        shown = np.asarray(Image.open(io.BytesIO(explorer.tiles["frame"].value)))
        frame = Image.fromarray(run.frames[-1 if f else 0])
        assert (shown == np.asarray(frame.resize(shown.shape[1::-1], Image.NEAREST))).all()
    assert explorer.errors == []


# ---------------------------------------------------------------------- a family of one's own

TOY = """
from dataclasses import dataclass
import torch
from ivkit.models.common import Family

PARTS = {"unet": "diffusers.UNet2DModel", "vae": "diffusers.AutoencoderTiny",
         "scheduler": "diffusers.DDIMScheduler"}

@dataclass
class ToyModel(Family):
    SIZE, FRAMES, VIDEO = (32, 32), 4, {"num_inference_steps": 3, "guidance_scale": 1.0}

    def layout(self):
        self.vae_scale_factor, self.multiple, self.channels = 2, 8, 4

    def rows(self, branch):
        return {"given": self.encode(branch.pixels).expand(branch.num_frames, -1, -1, -1)[None]}

    def network(self, z, t, *, given):
        frames = torch.cat([z, given], 2).flatten(0, 1)
        return self.part("unet")(frames, t).sample.unflatten(0, z.shape[:2])

FAMILY = ToyModel
"""


def test_a_family_is_a_file_and_a_row_of_the_table(tmp_path, monkeypatch):
    torch.manual_seed(0)
    wide = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
    few = {"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1), "latent_channels": 4}
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    sizes = {"block_out_channels": (8, 16), "norm_num_groups": 4, "layers_per_block": 1}
    unet = diffusers.UNet2DModel(in_channels=8, out_channels=4, **blocks, **sizes)
    unet.save_pretrained(tmp_path / "unet")
    diffusers.AutoencoderTiny(**few, **wide).save_pretrained(tmp_path / "vae")
    diffusers.DDIMScheduler().save_pretrained(tmp_path / "scheduler")
    module = types.ModuleType("ivkit.models.toy")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(TOY, vars(module))
    row = Checkpoint("toy", "toy", "a toy", "none", 0.1, 0.1, False, {"base": str(tmp_path)})
    monkeypatch.setitem(TABLE, "toy", row)

    assert len(TOY.splitlines()) <= 25
    pipe = iv.load("toy", device="cpu", dtype="float32")
    picture, other = (FAMILIES["svd"].picture(seed) for seed in (0, 1))
    mask = np.zeros((64, 64), bool)
    mask[8:24, 8:24] = True
    drag = iv.Drag([(16, 16), (40, 16)], mask=mask)
    how = {"lam": 0.0, "progress": False, "size": (64, 64)}
    plain, edited = (pipe.video(picture, "", edited=e, **how) for e in (None, other))
    dragged = pipe.video(picture, "", drags=drag, **how)
    assert plain.frames.shape == (4, 64, 64, 3)
    assert pipe.model.capabilities == {"video", "per_frame"}
    assert (edited.unedited == plain.frames).all() and not (edited.frames == plain.frames).all()
    assert not (dragged.frames == plain.frames).all()
    assert pipe.speed_up(compile=False) and pipe.model.networks.keys() == {"unet"}
    assert (pipe.run(plain.instructions, progress=False).frames == plain.frames).all()
