"""Loading by huggingface_hub itself, from a stand-in for the hub: see stand_in.py."""

import fnmatch
import json
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from diffusers import AutoencoderTiny
from huggingface_hub import constants, file_download
from huggingface_hub.utils import _http
from stand_in import COMMIT, Hub
from test_checkpoints import lora
from test_published import NAMES, published

import ivkit as iv
from ivkit.models import small
from ivkit.models.table import PIA, SD15, TABLE, TAESD

FLOAT = {"dtype": "float32", "device": "cpu"}
DECOYS = (
    "README.md",
    "v1-5-pruned.ckpt",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
)


def repository(name, folder):
    """A row's checkpoint as its repository has it, in `folder`."""
    row = TABLE[name]
    torch.manual_seed(0)
    parts = small.parts(name)
    index = {"_class_name": row.pipelines[0]}
    for part, value in parts.items():
        if value is None or part == "motion_adapter":
            continue
        index[part] = [type(value).__module__.split(".")[0], type(value).__name__]
        if not isinstance(value, torch.nn.Module):
            value.save_pretrained(folder / part)
            continue
        value.save_pretrained(folder / part, variant=row.variant)
        if not row.variant:  # in shards, as large ones are, and beside a variant that is not wanted
            whole = next((folder / part).glob("*.safetensors"))
            fp16 = folder / part / whole.name.replace(".safetensors", ".fp16.safetensors")
            whole.rename(fp16)
            value.save_pretrained(folder / part, max_shard_size="300KB")
    (folder / "model_index.json").write_text(json.dumps(index))
    for decoy in DECOYS if "unet" in parts else DECOYS[:1]:
        (folder / decoy).write_text("not wanted")
    return folder


@pytest.fixture(scope="module")
def repositories(tmp_path_factory):
    """Every repository of the table, by its id."""
    place, found = tmp_path_factory.mktemp("hub"), {}
    for name in NAMES:
        base = TABLE[name].ids["base"]
        if base not in found:
            found[base] = repository(name, place / base)
    for name in ("pia", "animatediff"):
        source = TABLE[name].ids["motion_adapter"]
        torch.manual_seed(0)
        small.parts(name)["motion_adapter"].save_pretrained(place / source)
        found[source] = place / source
    few = TABLE["pia-lcm"].ids["few_step"]
    (place / few).mkdir(parents=True)
    lora(small.parts("pia")["unet"], place / few)
    AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    ).save_pretrained(place / TAESD)
    return found | {few: place / few, TAESD: place / TAESD}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the hub's, its waits cut short."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.5)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.5)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # what is taken up is whole chunks
    at_once = SimpleNamespace(**{**vars(time), "sleep": lambda seconds: None})
    for module in (file_download, _http):
        monkeypatch.setattr(module, "time", at_once)
    return tmp_path / "cache"


@pytest.fixture
def hub(repositories, cache, monkeypatch):
    with Hub(repositories) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield hub


def half_kept(cache):
    return [str(file) for file in cache.rglob("*.incomplete")]


def networks(model):
    return {k: v for k, v in model.parts.items() if isinstance(v, torch.nn.Module) and k != "taesd"}


def sentence(name="svd", **options):
    with pytest.raises(FileNotFoundError) as caught:
        iv.load(name, **options, **FLOAT)
    said = str(caught.value)
    assert "\n" not in said and said.startswith(f"{name} needs ")
    assert TABLE[name].ids["base"] in said
    assert "ivkit.load('storybook') needs no download" in said
    return said


@pytest.mark.parametrize("name", NAMES)
def test_every_checkpoint_loads_from_its_repositories(name, hub, cache):
    row, told = TABLE[name], published(name)
    options = {"taesd": True} if "taesd" in row.ids else {}
    model = iv.load(name, **options, **FLOAT).model
    expected = networks(iv.load(name, small=True, **FLOAT).model)
    for part, network in networks(model).items():
        weights = network.state_dict()
        for key, value in expected[part].state_dict().items():
            same = torch.equal(weights[key], value)
            assert same or name == "pia-lcm", (part, key)  # its LoRA is merged in
    weights = [f for f in hub.fetched(told.repository) if f.endswith(".safetensors")]
    wanted = [f for f in told.files if f.endswith(".safetensors")]
    for file in weights:
        assert not row.variant or f".{row.variant}." in file
        assert row.variant or ".fp16." not in file
    missing = [w for w in wanted if not fnmatch.filter(weights, shards(w))]
    assert missing in ([], ["safety_checker/model.safetensors"])  # the stand-in brings none
    for repository in hub.repositories:
        assert not hub.fetched(repository) & set(DECOYS)
    assert half_kept(cache) == []


def shards(pattern):
    return pattern if "*" in pattern else pattern.replace(".safetensors", "*.safetensors")


def test_an_id_alone_is_enough(hub):
    source = TABLE["wan-2.2-ti2v"].ids["base"]
    model = iv.load(source, size=(64, 64), num_frames=9, **FLOAT).model
    assert type(model).__name__ == "WanModel" and model.replaces


def test_what_is_there_is_not_fetched_again_and_needs_no_hub(hub, monkeypatch):
    first = iv.load("ltx", **FLOAT).model
    asked = len(hub.asked)
    iv.load("ltx", **FLOAT)
    assert not [p for m, p, _ in hub.asked[asked:] if "/resolve/" in p or "/blob/" in p]
    hub.silent, asked = 2.0, len(hub.asked)
    again = iv.load("ltx", **FLOAT).model  # the hub is too slow to answer
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    offline = iv.load("ltx", **FLOAT).model
    for model in (again, offline):
        mine, theirs = (m.parts["transformer"].state_dict() for m in (model, first))
        assert all(torch.equal(mine[key], theirs[key]) for key in theirs)


LARGE = "diffusion_pytorch_model.fp16.safetensors"


def test_a_download_that_is_cut_goes_on_where_it_was(hub, cache):
    hub.cut[LARGE] = [5000, 2]
    iv.load("svd", **FLOAT)
    taken_up = [r for m, p, r in hub.asked if m == "GET" and p.endswith(LARGE) and r]
    assert "bytes=5000-" in taken_up
    assert half_kept(cache) == []


def test_a_download_that_stays_cut_keeps_whole_files_alone(hub, cache, monkeypatch):
    hub.cut[LARGE] = [0, 10**6]
    said = sentence("svd")
    assert "cannot get it now" in said
    assert half_kept(cache) == []
    (snapshot,) = cache.glob(f"models--*/snapshots/{COMMIT}")
    kept = {p.relative_to(snapshot).as_posix() for p in snapshot.rglob("*") if p.is_file()}
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    sentence("svd")  # what is there is not taken for the whole
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub.cut.clear()
    hub.asked.clear()
    iv.load("svd", **FLOAT)
    again = hub.fetched(TABLE["svd"].ids["base"])
    assert any(file.endswith(LARGE) for file in again)
    assert kept and not kept & again


@pytest.mark.parametrize("token", [None, "hf_of_someone_else"])
def test_a_gated_repository_says_how_to_get_in(token, hub, cache, monkeypatch):
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    hub.gated.add(TABLE["svd"].ids["base"])
    assert "licence must be accepted on its page first, then log in with `hf auth" in sentence()
    assert not list(cache.rglob("*.safetensors"))


def test_a_token_that_the_hub_does_not_know_is_said_to_be_one(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    hub.token = "Invalid credentials in Authorization header"
    assert "the hub answers 401: Invalid credentials in Authorization header" in sentence()


def test_a_repository_that_is_missing_names_another(hub):
    del hub.repositories[SD15]
    assert "not on the hub any more; try base='Lykon/dreamshaper-8' instead" in sentence("sd")


def test_a_missing_adapter_is_not_taken_for_a_missing_base(hub):
    del hub.repositories[PIA]
    assert f"{PIA} and {SD15} (6 GB in all), which is not on the hub any more" in sentence("pia")


def test_a_repository_that_was_disabled(hub):
    hub.disabled.add(TABLE["svd"].ids["base"])
    assert "the hub answers 403: Access to this resource is disabled." in sentence()


def test_a_file_that_is_missing_from_its_repository(hub, cache):
    hub.gone.add(LARGE)
    assert "the hub answers 404: Entry not found" in sentence()
    assert half_kept(cache) == []


def test_offline(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "offline mode is enabled" in sentence()
    assert hub.asked == []


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_hub_that_is_out_of_order(status, hub, cache):
    hub.status = status
    assert f"cannot get it now (the hub answers {status})" in sentence()
    assert not list(cache.rglob("*.safetensors"))


def test_a_hub_that_never_answers(hub):
    hub.silent = 1.5
    assert "the hub does not answer: ReadTimeout" in sentence()


def test_no_hub_at_all(hub):
    hub.shutdown()
    hub.server_close()
    assert "the hub does not answer: ConnectError" in sentence()


def test_the_endpoint_of_the_environment(repositories, tmp_path):
    """Nothing replaced inside: another process, told of the hub by its environment."""
    with Hub(repositories) as hub:
        asked = "import ivkit as iv; print(iv.load('ltx', device='cpu', dtype='float32'))"
        told = {
            **os.environ,
            "HF_ENDPOINT": hub.address,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_CACHE": str(tmp_path),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }
        told |= {"PYTHONPATH": os.pathsep.join(sys.path)}
        call = [sys.executable, "-c", asked]
        said = subprocess.run(call, env=told, capture_output=True, text=True)
    assert said.returncode == 0 and "ltx" in said.stdout, said.stderr[-2000:]
    assert (tmp_path / "models--Lightricks--LTX-Video/snapshots" / COMMIT).is_dir()
