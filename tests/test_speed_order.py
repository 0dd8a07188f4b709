"""speed_up, LoRAs, reuse, caches, compilation, graphs: in any order the plain order's numbers."""

import copy
import functools
import random

import pytest
import torch
import torch._inductor.config
from test_speed import clip, fresh

from ivkit.models import personal, speed

STEPS = {"num_inference_steps": 3, "lam": 0.4}


@pytest.fixture(autouse=True)
def no_compiler_and_no_gpu(monkeypatch):
    """Compiled code is traced and run as it is; a graph replays the network that it recorded."""
    compile_ = torch.compile

    def compile(f, options=None, **others):
        return compile_(f, backend="eager", **others)

    def record(self, inputs):
        part, unet = self.call.func, copy.deepcopy(self.call.args[0])
        out = part(unet, *inputs)
        replay = {"replay": lambda _: out.copy_(part(unet, *inputs))}
        return type("Graph", (), replay)(), inputs, out

    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setattr(speed, "_compiled", functools.cache(speed._compiled.__wrapped__))
    monkeypatch.setattr(speed.Graphed, "_record", record)
    yield
    torch._dynamo.reset()


def switches() -> dict:
    """Every switch of the whole process that a call might leave behind."""
    backends = torch.backends
    found = {
        "threads": torch.get_num_threads(),
        "grad": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "random": torch.get_rng_state().tolist(),
        "matmul": torch.get_float32_matmul_precision(),
        "stance": str(torch._dynamo.eval_frame._stance),
        "sdp": [
            backends.cuda.flash_sdp_enabled(),
            backends.cuda.mem_efficient_sdp_enabled(),
            backends.cuda.math_sdp_enabled(),
            backends.cuda.cudnn_sdp_enabled(),
        ],
        "cudnn": [backends.cudnn.benchmark, backends.cudnn.deterministic, backends.cudnn.enabled],
    }
    for config in (torch._dynamo.config, torch._inductor.config):
        found[config.__name__] = {k: str(v) for k, v in config.shallow_copy_dict().items()}
    return found


class Machine:
    """A pipeline, what was done to it, and what a clip of it must be."""

    def __init__(self, name, tmp_path):
        self.pipe, self.picture = fresh(name)
        self.file, self.lora, self.strength, self.near = tmp_path / "l.safetensors", None, 0, {}

    def do(self, action):
        getattr(self, action)()

    def latents(self):
        return clip(self.pipe, self.picture, **STEPS).state.z

    # speed
    def up(self):
        self.pipe.speed_up(compile=False)
        self.near = {}

    def off(self):
        assert self.pipe.speed_up(on=False) == []
        self.near = {}

    def blocks(self):
        self.pipe.speed_up(compile="blocks")
        self.near = {}


class UNetMachine(Machine):
    def whole(self):
        self.pipe.speed_up(compile="whole")
        self.near = {}

    def reuse(self):
        self.near = {"reuse": 2}
        self.pipe.speed_up(compile=False, **self.near)

    def graphs(self):
        self.up()
        speed._record_graphs(self.pipe.model)

    def attach(self):
        if self.lora is None:
            self.lora = personal.attach(self.pipe, self.file, 1.0)
        self.strength = 1.0
        self.lora.set_strength(1.0)

    def weaker(self):
        if self.lora is not None:
            self.strength = 0.3
            self.lora.set_strength(0.3)

    def remove(self):
        if self.lora is not None:
            self.lora.remove()
        self.lora, self.strength = None, 0


class TransformerMachine(Machine):
    def cache(self):
        self.near = {"cache": 0.9}
        self.pipe.speed_up(compile=False, **self.near)

    def another(self):
        self.near = {"cache": 0.4}
        self.pipe.speed_up(compile=False, **self.near)

    def attach(self):
        lay_beside(self.pipe, 1.0)
        self.strength = 1.0

    def weaker(self):
        lay_beside(self.pipe, 0.3)
        self.strength = 0.3

    def remove(self):
        self.pipe.model.parts["transformer"].unload_lora()
        self.pipe.clear_cache()
        self.strength = 0


def lay_beside(pipe, strength):
    """A LoRA by diffusers' own call, and `forget`, as its docstring asks for."""
    from peft import LoraConfig

    network = pipe.model.parts["transformer"]
    if "a" not in getattr(network, "peft_config", {}):
        torch.manual_seed(5)
        config = LoraConfig(r=4, target_modules=["to_q", "to_k", "to_v"], init_lora_weights=False)
        network.add_adapter(config, "a")
    network.set_adapters("a", weights=strength)
    pipe.clear_cache()


def trained(file):
    """A LoRA file of random A and B."""
    pipe, _ = fresh("pia")
    lora = personal.new(pipe, rank=4)
    torch.manual_seed(3)
    for p in lora.parameters:
        p.data.normal_(0, 0.15)
    lora.save(file)


def expected(kind, name, tmp_path, strength, near):
    """In the plain order: the LoRA, then the approximation alone."""
    plain = kind(name, tmp_path)
    if strength:
        plain.attach()
    if strength not in (0, 1):
        plain.weaker()
    if near:
        plain.pipe.speed_up(compile=False, **near)
    return plain.latents()


KINDS = {
    "pia": UNetMachine,
    "wan-2.1": TransformerMachine,
    "cogvideox": TransformerMachine,
    "ltx": TransformerMachine,
}
COMPILED = {"whole", "blocks"}  # tracing takes most of the time


@pytest.mark.parametrize("name", KINDS)
def test_any_order_is_the_plain_order(name, tmp_path):
    actions = sorted({"up", "off", *vars(KINDS[name])} - COMPILED)
    in_order(name, tmp_path, [a for a in actions if a[0] != "_"], 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("seed", [1, 2])
def test_any_order_with_compilation_is_the_plain_order(name, seed, tmp_path):
    actions = sorted({"up", "off", "blocks", *vars(KINDS[name])})
    in_order(name, tmp_path, [a for a in actions if a[0] != "_"], seed)


@pytest.mark.slow
def test_a_lora_after_compilation_is_seen(tmp_path):
    in_order("pia", tmp_path, ["whole", "attach", "remove"], 3, more=0)


def in_order(name, tmp_path, actions, seed, more=8):
    kind, known = KINDS[name], {}
    trained(tmp_path / "l.safetensors")
    machine, done, draw = kind(name, tmp_path), [], random.Random(seed)
    order = draw.sample(actions, len(actions)) if more else actions
    order += draw.choices(actions, k=more)
    plain = expected(kind, name, tmp_path, 0, {})
    for action in order:
        before = switches()
        machine.do(action)
        found = machine.latents()
        changed = {k for k, v in switches().items() if v != before[k]}
        done.append(action)
        changed -= {"random"} if action in ("attach", "weaker") else set()
        assert not changed, f"{changed} after {done}"
        key = (machine.strength, *machine.near.items())
        if key not in known:
            known[key] = expected(kind, name, tmp_path, machine.strength, machine.near)
        what = f"{key} after {done}"
        torch.testing.assert_close(found, known[key], atol=2e-3, rtol=2e-3, msg=what)
        if key != (0,):
            assert not torch.allclose(known[key], plain, atol=2e-3), f"{key} changes nothing"
    machine.remove()
    machine.off()
    assert torch.equal(machine.latents(), plain), "the end is not the beginning, bit for bit"


def test_a_lora_trained_after_speed_up_learns_in_every_layer(tmp_path):
    def train(faster):
        pipe, picture = fresh("pia")
        if faster:
            pipe.speed_up(compile=False)
        lora = personal.new(pipe, rank=2)
        pairs = [(picture(i), "a red boat") for i in range(2)]
        personal.train(lora, pairs, steps=3, batch=2, progress=False)
        moved = {n for n, p in pipe.model.unet.named_parameters() if "lora_B" in n and p.any()}
        return moved, pipe.image("a red boat", num_inference_steps=2)

    (learned, drawn), (plain, as_plain) = train(True), train(False)
    assert learned == plain and sum(".to_q." in name for name in learned) >= 4
    assert max(abs(a - b) for a, b in zip(drawn.tobytes(), as_plain.tobytes(), strict=True)) <= 1


def test_what_fails_half_way_leaves_the_model_as_it_was(monkeypatch):
    pipe, picture = fresh("wan-2.1")
    before, layers = clip(pipe, picture, **STEPS).state.z, set(modules(pipe))
    network = pipe.model.parts["transformer"]
    enable = network.enable_cache

    def failing(config):
        enable(config)
        raise RuntimeError("half-way")

    monkeypatch.setattr(network, "enable_cache", failing)
    with pytest.raises(RuntimeError, match="half-way"):
        pipe.speed_up(compile="blocks", cache=0.1)
    assert set(modules(pipe)) == layers and not pipe.model.speed.cached
    monkeypatch.undo()
    pipe.clear_cache()
    assert torch.equal(clip(pipe, picture, **STEPS).state.z, before)


def modules(pipe):
    return [n for part in pipe.model.modules() for n, _ in part.named_modules()]


def test_weights_changed_by_hand_are_seen():
    pipe, picture = fresh("pia")
    pipe.speed_up(compile=False)
    unet = pipe.model.unet
    layer = next(m for n, m in unet.named_modules() if n.endswith("attn1") and "motion" not in n)
    before = clip(pipe, picture, **STEPS).state.z
    layer.to_v.weight.data.mul_(3)
    pipe.model.weights_changed()
    changed = clip(pipe, picture, **STEPS).state.z
    pipe.speed_up(on=False)
    torch.testing.assert_close(changed, clip(pipe, picture, **STEPS).state.z, atol=1e-3, rtol=1e-3)
    assert not torch.allclose(changed, before, atol=1e-3)
