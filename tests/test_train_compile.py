"""Ahead-of-time compiling: what it counts, what it reads from the compiler, what it tells."""

import functools
import importlib.util
import json
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

import onereward_jax
from onereward_jax.common.config_files import load_config
from onereward_jax.models.attention.splash import splash_attention
from onereward_jax.parallel import make_mesh, mesh_jit
from onereward_jax.train_compile.device_memory import SHOWN_BUFFERS, Shortage, shortage_of
from onereward_jax.train_compile.hlo import Traffic, collective_traffic, largest_arrays
from onereward_jax.train_compile.programs import make_program
from onereward_jax.train_compile.topology import Topology
from onereward_jax.train_compile.traced_arrays import largest_arrays_of
from onereward_jax.training.count_jaxpr_flops import Assumptions, count_flops, function_flops

ROOT = pathlib.Path(onereward_jax.__file__).parents[1]
PRODUCT = 2 * 8 * 8 * 8
SQUARE = jax.ShapeDtypeStruct((8, 8), jnp.float32)
count = functools.partial(function_flops, assumptions=Assumptions(loop_trips=5.0, true_share=0.25))


def test_bodies_count_as_often_as_they_run():
    def scanned(x):
        return jax.lax.scan(lambda c, _: (c @ x, None), x, None, length=3)[0]

    def looped(x, stop):
        return jax.lax.fori_loop(0, stop, lambda _, c: c @ x, x)

    def chosen(x, choice):
        return jax.lax.cond(choice, lambda c: c @ c @ c @ c @ c, lambda c: c @ c @ c, x)

    assert count(lambda x: jax.jit(jnp.matmul)(x, x), SQUARE) == PRODUCT
    assert count(scanned, SQUARE) == 3 * PRODUCT
    assert count(looped, SQUARE, jax.ShapeDtypeStruct((), jnp.int32)) == 5 * PRODUCT
    choice = jax.ShapeDtypeStruct((), jnp.bool_)
    assert count(chosen, SQUARE, choice) == (0.75 * 2 + 0.25 * 4) * PRODUCT


def test_gradients_and_what_they_compute_again_count():
    def loss(x):
        return jnp.sum(jnp.tanh(x @ x) @ x)

    assert count(jax.grad(loss), SQUARE) == (2 + 4) * PRODUCT
    # all but the last product, whose outcome no gradient needs
    assert count(jax.grad(jax.checkpoint(loss)), SQUARE) == (2 + 4 + 1) * PRODUCT


def test_convolutions_count_and_their_gradients_cost_as_much_again():
    images = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
    kernel = jax.ShapeDtypeStruct((3, 3, 3, 5), jnp.float32)

    def convolve(x, w, stride):
        return jax.lax.conv_general_dilated(
            x, w, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    forward = 2 * 2 * 8 * 8 * 5 * 9 * 3
    for stride in (1, 2):
        one = forward / stride**2
        assert count(functools.partial(convolve, stride=stride), images, kernel) == one
        back = jax.grad(lambda x, w: jnp.sum(convolve(x, w, stride) ** 2), argnums=(0, 1))  # noqa: B023
        assert count(back, images, kernel) == 3 * one


def test_kernels_of_tpus_count_on_every_device():
    mesh = make_mesh(1, 2, 2, devices=jax.devices()[:4])
    arrays = [jax.ShapeDtypeStruct((2, 512, 2, 128), jnp.float32)] * 3
    traced = mesh_jit(functools.partial(splash_attention, interpret=True), mesh).trace(*arrays)
    assert count_flops(traced.jaxpr.jaxpr, Assumptions()) == 2 * 2 * (2 * 512 * 512 * 2 * 128)


def test_attention_of_cudnn_counts_and_its_gradient_forms_the_logits_again(cudnn_to_trace):
    queries = jax.ShapeDtypeStruct((2, 256, 4, 64), jnp.bfloat16)
    keys = jax.ShapeDtypeStruct((2, 384, 2, 64), jnp.bfloat16)
    attend = functools.partial(jax.nn.dot_product_attention, implementation="cudnn")
    product = 2 * 2 * 256 * 4 * 384 * 64
    assert count(attend, queries, keys, keys) == 2 * product

    def loss(q, k, v):
        return jnp.sum(attend(q, k, v).astype(jnp.float32))

    assert count(jax.grad(loss, argnums=(0, 1, 2)), queries, keys, keys) == 7 * product


MODULE = """
HloModule step

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%body (p: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %p = (s32[], /*index=1*/f32[4,8]{1,0:T(8,128)}) parameter(0)
  %part = f32[4,8]{1,0:T(8,128)} get-tuple-element(%p), index=1
  %whole = f32[16,8]{1,0} all-gather(%part), channel_id=1, dimensions={0}
  %i = s32[] get-tuple-element(%p), index=0
  ROOT %next = (s32[], f32[4,8]) tuple(%i, %part)
}

%known (p: (s32[], f32[4,8])) -> pred[] {
  %p = (s32[], f32[4,8]) parameter(0)
  %bound = s32[]{:T(128)} constant(19)
  %i = s32[] get-tuple-element(%p), index=0
  ROOT %less = pred[] compare(%i, %bound), direction=LT
}

%unknown (p: (s32[], f32[4,8])) -> pred[] {
  %p = (s32[], f32[4,8]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  ROOT %less = pred[] compare(%i, %i), direction=LT
}

ENTRY %main (a: f32[4,8]) -> f32[4,8] {
  %a = f32[4,8] parameter(0)
  %zero = s32[] constant(0)
  %init = (s32[], f32[4,8]) tuple(%zero, %a)
  %first = (s32[], f32[4,8]) while(%init), condition=%known, body=%body
  %second = (s32[], f32[4,8]) while(%first), condition=%unknown, body=%body
  %third = (s32[], f32[4,8]) while(%second), condition=%unknown, body=%body, \
backend_config={"known_trip_count":{"n":"5"}}
  %half = bf16[4,8]{1,0} convert(%a)
  %sums = (f32[4,8], bf16[4,8]) all-reduce(%a, /*index=1*/%half), to_apply=%add
  %start = (f32[4,8], f32[4,8]) collective-permute-start(%a), source_target_pairs={{0,1}}
  ROOT %done = f32[4,8] collective-permute-done(%start)
}
"""


def test_collectives_count_as_often_as_their_loops_run():
    assert collective_traffic(MODULE, unknown_trips=2.0) == {
        "all-gather": Traffic(26.0, 26.0 * 16 * 8 * 4, 16.0 * 8 * 4),
        "all-reduce": Traffic(1.0, 4.0 * 8 * (4 + 2), 4.0 * 8 * (4 + 2)),
        "collective-permute": Traffic(1.0, 4.0 * 8 * 4, 4.0 * 8 * 4),
    }


def test_the_compiler_is_understood_when_memory_is_short():
    message = """RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory \
space hbm. Used 26.50G of 15.75G hbm. Exceeded hbm capacity by 10.75G.

  Largest program allocations in hbm:

  1. Size: 6.00G
     Operator: op_name="jit(step)/decode"
     Shape: f32[1,1024,1024,128]{3,2,1,0:T(8,128)}
     ==========================

  2. Size: 512.00M
     Shape: f32[16384,8192]{1,0}
     ==========================
"""
    shortage = shortage_of(message)
    assert shortage.needed == 26.5 * 2**30
    assert shortage.buffers == (
        "6.00G f32[1,1024,1024,128] (jit(step)/decode)",
        "512.00M f32[16384,8192]",
    )
    assert shortage_of("INVALID_ARGUMENT: something else") is None


def test_the_compiler_is_understood_when_it_gives_up_early():
    message = """RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO \
temporaries (17.34G) exceeds available HBM (15.75G)."""
    assert shortage_of(message) == Shortage(needed=int(17.34 * 2**30), buffers=())


def test_the_largest_arrays_of_a_trace_are_named():
    def step(x):
        with jax.named_scope("decode"):
            wide = jax.lax.scan(lambda c, _: (jnp.sin(c), jnp.outer(c, c)), x, None, length=2)[1]
        return jnp.sum(wide) + jnp.sum(jnp.tile(x, 2))

    jaxpr = jax.make_jaxpr(step)(jnp.zeros(1024)).jaxpr
    largest, second = largest_arrays_of(jaxpr, 2)
    assert largest.startswith("0.01G float32[2,1024,1024] over all devices (decode")
    assert second.startswith("0.00G float32[1024,1024]")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs the extra tpu")
def test_a_step_that_does_not_fit_says_so_and_what_is_large():
    flags = ["--topology=v5e:2x2", "--stage=rl", "--config.rl.batch_size=16384"]
    outcome = compile_mini(*flags)
    assert outcome.returncode == 1, outcome.stderr
    assert "does not fit" in outcome.stdout
    _, _, buffers = outcome.stdout.partition("The largest buffers:")
    assert len(buffers.strip().splitlines()) == SHOWN_BUFFERS


def test_the_largest_arrays_of_a_module_are_named():
    """Those of fusions are no buffers, nor are views."""
    module = """
HloModule step

%fused (p: f32[64,64]) -> f32[8,8] {
  %p = f32[64,64]{1,0} parameter(0)
  %inside = f32[64,64]{1,0} negate(%p)
  ROOT %cut = f32[8,8]{1,0} slice(%inside), slice={[0:8], [0:8]}
}

ENTRY %main (a: f32[64,64]) -> f32[8,8] {
  %a = f32[64,64]{1,0} parameter(0)
  %big = f32[1024,1024]{1,0} broadcast(%a), metadata={op_name="jit(step)/decode"}
  %again = f32[1024,1024]{1,0} negate(%big), metadata={op_name="jit(step)/decode"}
  %half = bf16[512,1024]{1,0} convert(%big)
  ROOT %small = f32[8,8]{1,0} fusion(%a), kind=kLoop, calls=%fused
}
"""
    assert largest_arrays(module, 2) == (
        "0.00G f32[1024,1024] (jit(step)/decode)",
        "0.00G bf16[512,1024]",
    )


@pytest.mark.parametrize("name", ["v9:2x2", "v5p", "v5p:2xa", "v5p:2", "h100:8", "h100:2x2x2"])
def test_names_of_topologies_are_checked(name):
    with pytest.raises(ValueError, match="--topology"):
        Topology.named(name)


@pytest.mark.parametrize(
    ("name", "packages", "extra"),
    [
        ("v5e:2x2", ["libtpu"], "tpu"),
        ("h100:1x8", ["jax_cuda12_plugin", "jax_cuda13_plugin"], "cuda"),
    ],
)
def test_without_the_compiler_one_sentence_says_so(monkeypatch, name, packages, extra):
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)
    wanted = rf"needs the package {' or '.join(packages)};.*\[{extra}\]"
    with pytest.raises(ModuleNotFoundError, match=wanted):
        Topology.named(name).devices()


def test_gpus_talk_over_their_own_links_inside_a_host_only():
    one, two = Topology.named("h100:1x8"), Topology.named("h100:2x8")
    assert one.link_bandwidth == one.chip.link_bandwidth > two.link_bandwidth
    with pytest.raises(ValueError, match="--slices is 2, but GPUs"):
        Topology.named("h100:2x8", slices=2)


def compile_mini(*flags: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "onereward_jax.train_compile", "--config=configs/mini.py"]
    return subprocess.run([*command, *flags], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--topology=v5e:two"], "--topology 'v5e:two': expected the chips along each axis"),
        (["--topology=v5e:2x2", "--config.rl.stesp=5"], "config.rl.stesp is not a field"),
    ],
)
def test_mistakes_end_in_one_sentence(flags, message):
    outcome = compile_mini(*flags)
    assert outcome.returncode == 2
    assert outcome.stderr.startswith(f"error: {message}") and outcome.stderr.count("\n") == 1


def test_a_batch_that_the_mesh_cannot_take_is_named():
    config = load_config(str(ROOT / "configs" / "mini.py"))
    config.rl.batch_size = 12
    mesh = make_mesh(1, 8, 1)
    with pytest.raises(ValueError, match=r"config.rl.batch_size, config.mesh: .* 12 .* 8 parts"):
        make_program(config, "rl", mesh)


def test_a_crash_is_not_taken_for_a_step_that_does_not_fit():
    code = """
import sys
from onereward_jax.train_compile import __main__ as program

def crash(topology):
    raise NotImplementedError("no such kernel")

program.report = crash
program.parse_flags(
    ["train_compile", "--config=configs/mini.py", "--topology=v5e:2x2"], "", "topology"
)
program.main([])
"""
    outcome = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert outcome.returncode == 70
    assert "NotImplementedError: no such kernel" in outcome.stderr


def test_neither_grain_nor_pillow_is_loaded():
    """What reads the judge's tokenizer, transformers, takes Pillow along where it can."""
    code = """
import sys
from onereward_jax.common.config_files import load_config
from onereward_jax.parallel import make_mesh
from onereward_jax.train_compile.__main__ import make_programs

config, mesh = load_config("configs/mini.py"), make_mesh(1, -1, 1)
jobs = make_programs(config, "candidates", mesh)
assert not {"grain", "PIL"} & set(sys.modules)
sys.modules.update(grain=None, PIL=None)
jobs |= make_programs(config, "rl", mesh) | make_programs(config, "reward", mesh)
job = jobs["reward, accuracy"]
job.function.lower(*job.arguments).compile()
"""
    outcome = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert outcome.returncode == 0, outcome.stderr


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["rl", "reward", "candidates", "evaluate"])
@pytest.mark.parametrize(
    ("topology", "package"), [("v5e:2x2", "libtpu"), ("h100:1x4", "jax_cuda12_plugin")]
)
def test_the_mini_config_compiles_for_tpus_and_gpus(topology, package, stage):
    pytest.importorskip(package, reason="needs the extra tpu or cuda")
    flags = [f"--topology={topology}", f"--stage={stage}", "--json"]
    flags.append("--config.models.dtype=bfloat16")
    outcome = compile_mini(*flags, "--config.mesh.data=1", "--config.mesh.fsdp=-1")
    assert outcome.returncode == 0, outcome.stderr
    found = json.loads(outcome.stdout)
    assert found["fits"] and len(found["compiled"]) == {"candidates": 1}.get(stage, 2)
    for report in found["compiled"]:
        assert report["fits"] and report["devices"] == 4
        assert 0 < report["memory"]["peak"] + report["resident"] < report["capacity"]
        assert report["model_flops"] <= report["flops"]
        assert report["collectives"]["all-gather"]["bytes"] > 0
    saves = [report["saving"] is not None for report in found["compiled"]]
    assert saves == [stage in ("rl", "reward"), False][: len(saves)]
