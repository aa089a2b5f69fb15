"""The search of `train_compile --suggest`: what is thought of, and in what order."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import onereward_jax
from onereward_jax.common.config_files import load_config
from onereward_jax.parallel import make_mesh, mesh_jit
from onereward_jax.train_compile import suggest
from onereward_jax.train_compile.chips import CHIPS, MEASURED_MFU, measured_mfu
from onereward_jax.train_compile.device_memory import Shortage
from onereward_jax.train_compile.estimate import WHOLE_STEP, Estimate, estimate
from onereward_jax.train_compile.job import Job, Main
from onereward_jax.train_compile.report import Report, likely_seconds
from onereward_jax.train_compile.search_space import (
    MOST_CONTEXT,
    MOST_TENSOR,
    RunLayout,
    candidates,
)
from onereward_jax.train_compile.topology import Topology
from onereward_jax.training.count_jaxpr_flops import Assumptions
from onereward_jax.training.train_state import TrainState

CONFIGS = pathlib.Path(onereward_jax.__file__).parents[1] / "configs"
V5P = Topology.named("v5p:2x2x4")
PLAIN = RunLayout(1, 8, 2, "full", samples=1, microbatches=1, moments="float32")


def config_of(name):
    return load_config(str(CONFIGS / f"{name}.py"))


@pytest.mark.parametrize("stage", ["rl", "reward", "candidates"])
def test_every_candidate_is_a_run(stage):
    """All devices work, the batch is that of the config or more, and its fields are fields."""
    config = config_of("flux_fill_dev")
    found = list(candidates(config, stage, 16, slices=2))
    assert len(set(found)) == len(found) > 8
    for way in found:
        changed = way.config(config, stage)
        mesh, section = changed.mesh, changed[stage]
        assert mesh.data * mesh.fsdp * mesh.tensor * mesh.context == 16
        assert mesh.data % 2 == 0 and mesh.tensor <= MOST_TENSOR
        assert section.batch_size % (way.parts * max(way.microbatches, 1)) == 0
        if stage != "candidates":
            assert section.batch_size >= config[stage].batch_size
            assert section.optimizer.moments == way.moments
    assert config == config_of("flux_fill_dev")
    # Tokens are only shared where every sample has a device, and where they are FLUX's.
    small = {"rl": 8, "candidates": section.batch_size, "reward": 8}[stage]
    config[stage].batch_size = small
    used = {(way.parts, way.context) for way in candidates(config, stage, 4 * small, slices=1)}
    shared = {context for parts, context in used if parts >= small}
    assert shared == ({1} if stage == "reward" else {1, 2, MOST_CONTEXT})
    assert all(context == 1 for parts, context in used if parts < small)


def test_what_needs_no_less_than_what_did_not_fit_is_known():
    assert PLAIN.needs_no_less(PLAIN)
    assert dataclasses.replace(PLAIN, remat="none", samples=2).needs_no_less(PLAIN)
    assert not PLAIN.needs_no_less(dataclasses.replace(PLAIN, remat="none"))
    assert not dataclasses.replace(PLAIN, moments="bfloat16").needs_no_less(PLAIN)
    assert not dataclasses.replace(PLAIN, fsdp=16, tensor=1).needs_no_less(PLAIN)


def job_of(layers=4, width=2048, tokens=1024):
    """A stack of square layers that learns."""
    mesh = make_mesh(1, 1, 1, devices=jax.devices()[:1])

    def array(shape, *axes):
        sharding = NamedSharding(mesh, P(*axes))
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding)

    weights = {"kernel": array((layers, width, width), None, "fsdp", "tensor")}
    step = array(())
    state = TrainState(step, weights, {"mu": weights, "nu": weights}, None, step)
    main = Main(weights, jnp.bfloat16, tokens=tokens, passes=3.0, learns=True)
    flops = 3.0 * 2 * layers * width**2 * tokens * 8
    return Job(mesh_jit(lambda: 0, mesh), (state,), 8, flops, Assumptions(), main)


def test_memory_is_at_least_what_lies_on_a_device():
    weights = 4 * 2048**2
    # parameters, both moments and gradients; the copy that is computed with; the counters
    expected = weights * (4 * 4 + 2) / 16 + 2 * 4 + WHOLE_STEP
    assert estimate(job_of(), PLAIN, V5P).memory == pytest.approx(expected)
    half = dataclasses.replace(PLAIN, moments="bfloat16")
    assert estimate(job_of(), half, V5P).memory == pytest.approx(expected - weights * 2 / 16)
    kept = dataclasses.replace(PLAIN, remat="none")
    # inputs and outputs of four layers, split over two devices
    assert estimate(job_of(), kept, V5P).memory == pytest.approx(
        expected + 4 * 2 * 2048 / 2 * 1024 * 2
    )


def test_gathering_weights_for_few_tokens_takes_longer_than_computing():
    alone = dataclasses.replace(PLAIN, data=16, fsdp=1, tensor=1)
    spread = dataclasses.replace(PLAIN, fsdp=16, tensor=1)
    many, few = job_of(tokens=1024), job_of(tokens=128)
    repeated = 4 / 3
    least = many.model_flops / 8 / 16 / V5P.chip.flops * repeated
    for way in (alone, spread):
        assert estimate(many, way, V5P).sample_seconds == pytest.approx(least)
    assert estimate(few, spread, V5P).sample_seconds > estimate(few, alone, V5P).sample_seconds


def test_products_of_int8_take_the_time_that_the_chip_needs_for_them():
    """Half of the operations in half of the time each; remat repeats a third, not in int8."""
    alone = dataclasses.replace(PLAIN, data=16, fsdp=1, tensor=1)
    full = job_of()
    half = dataclasses.replace(full, int8_flops=full.model_flops / 2)
    share = estimate(half, alone, V5P).sample_seconds / estimate(full, alone, V5P).sample_seconds
    assert share == pytest.approx((4 / 3 - 1 / 4) / (4 / 3))
    assert CHIPS["v4"].seconds(8.0, 4.0) == CHIPS["v4"].seconds(8.0, 0.0)


def test_seconds_to_plan_with_are_those_measured_on_a_gpu():
    """docs/gpu.md: 25.0 to 29.4 s for `rl` at an MFU of 0.47 to 0.40, where the bound is 12.1 s."""
    flops = 25.0 * 0.47 * CHIPS["h100"].flops
    assert 25.0 < likely_seconds("h100", flops, 12.1) < 29.5
    assert likely_seconds("h100", flops, 40.0) == 40.0, "the links take longer"
    assert {measured_mfu(name) for name in CHIPS} == set(MEASURED_MFU.values())
    assert all(measured_mfu(name) < 0.5 for name in CHIPS)


def report_of(fits):
    rest = {field.name: 0.0 for field in dataclasses.fields(Report)}
    words = {"stage": "rl", "topology": V5P.name, "mesh": {}, "collectives": {}, "memory": None}
    words["saving"] = None
    counts = {"slices": 1, "devices": 16, "batch_size": 8, "resident": 0}
    shortage = None if fits else Shortage(needed=2**40, buffers=())
    return Report(**rest | words | counts | {"shortage": shortage})


def test_the_fastest_with_which_the_run_fits_is_taken(monkeypatch):
    """What cannot fit is not compiled; what else the run does is, where its step fits."""
    ways = [
        dataclasses.replace(PLAIN, remat="dots", samples=2),
        dataclasses.replace(PLAIN, remat="none", samples=2),
        dataclasses.replace(PLAIN, fsdp=16, tensor=1),
        dataclasses.replace(PLAIN, fsdp=4, tensor=4),
        PLAIN,
    ]
    compiled, others = [], []

    def compile_candidate(way, *_):
        compiled.append(way)
        return report_of(fits=way in ways[2:4])

    def compile_others(way, *_):
        others.append(way)
        return [report_of(fits=way is ways[3])], {"evaluate.batch_size": 16}

    ranking = [(way, Estimate(0.0, float(at))) for at, way in enumerate(ways)]
    monkeypatch.setattr(suggest, "ranked", lambda *_: ranking)
    monkeypatch.setattr(suggest, "compile_candidate", compile_candidate)
    monkeypatch.setattr(suggest, "compile_others", compile_others)
    trials = suggest.search(config_of("flux_fill_dev"), "rl", V5P)
    assert compiled == [ways[0], ways[2], ways[3]] and others == ways[2:4]
    best = suggest.best_of(trials)
    assert best.candidate is ways[3]
    flags = suggest.flags_of(best, "rl")
    assert "--config.mesh.fsdp=4" in flags and "--config.evaluate.batch_size=16" in flags


def test_batches_that_do_not_fit_are_halved_down_to_a_sample_of_each_device(monkeypatch):
    """Evaluation on few devices takes fewer samples; the learning stages keep theirs."""
    assert list(suggest.fitting_batches(64, 6)) == [66, 30, 12, 6]
    assert list(suggest.fitting_batches(4, 8)) == [8]
    monkeypatch.setattr(suggest, "make_mesh", lambda **_: None)
    monkeypatch.setattr(Topology, "devices", lambda _: [])
    asked = []

    def make_programs(config, stage, _mesh):
        batch = config[stage].batch_size
        asked.append((stage, batch))
        names = {"rl": ("rl", "rl, samples")}.get(stage, (stage,))
        return dict.fromkeys(names, batch)

    monkeypatch.setattr(suggest, "make_programs", make_programs)
    monkeypatch.setattr(suggest, "compile_report", lambda batch, *_: report_of(fits=batch <= 16))
    config = config_of("flux_fill_dev")
    reports, batches = suggest.compile_others(PLAIN, config, "rl", V5P)
    assert batches == {"candidates.batch_size": 16, "evaluate.batch_size": 16}
    assert [one.fits for one in reports] == [True] * 3
    halved = [64, 32, 16]
    assert asked[1:] == [(one, size) for one in ("candidates", "evaluate") for size in halved]
