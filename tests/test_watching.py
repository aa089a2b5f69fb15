"""What a run tells about itself: clocks, traces, loggers, and how its settings are checked."""

import io
import json
import pathlib
import re
import resource
import struct
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import FrozenConfigDict
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from onereward_jax.chain import StageContext
from onereward_jax.parallel import make_mesh
from onereward_jax.parallel.peak_flops import PEAK_FLOPS, peak_flops
from onereward_jax.stages.training_logs import prepare_logging, training_logs
from onereward_jax.training import loggers
from onereward_jax.training.loggers import TensorBoard, WeightsAndBiases
from onereward_jax.training.metrics import mean_of
from onereward_jax.training.metrics_jsonl import METRICS, MetricsWriter, read_metrics
from onereward_jax.training.profiler import StepTrace
from onereward_jax.training.throughput import Throughput, format_row

WAIT, STEP, PAUSE = 0.2, 0.1, 0.4
"""Seconds."""


def slow_step(seconds):
    """A step that takes a while on the host and measures nothing."""
    time.sleep(seconds)
    return None, {"refused": mean_of(jnp.zeros(1))}


def run_steps(throughput, first, last):
    """Every step waits for data, the last one is followed by a pause."""
    with throughput.running(first - 1):
        for number in range(first, last + 1):
            with throughput.waiting():
                time.sleep(WAIT)
            _, measured = throughput.run(slow_step, number, STEP)
            jax.block_until_ready(measured)
        with throughput.pausing():
            time.sleep(PAUSE)
        return throughput.read(last)


def test_time_is_told_apart_and_goodput_spans_restarts():
    slow_step(0.0)
    began = time.time()
    row = {"step": 4} | run_steps(Throughput(started=began - 1.0), 1, 4)
    assert row["step_seconds"] == pytest.approx(WAIT + STEP, rel=0.3)
    assert row["data_wait_seconds"] == pytest.approx(WAIT, rel=0.3)
    assert row["elapsed_seconds"] == pytest.approx(1.0 + time.time() - began, abs=0.1)
    useful = row["goodput"] * row["elapsed_seconds"]
    assert useful == pytest.approx(4 * STEP, rel=0.5)

    # Killed after 6 steps, resumed behind 4: what the lost steps took is in no numerator.
    lost = row | {"step": 6, "goodput": 0.9}
    again = run_steps(Throughput(history=[row, lost]), 5, 6)
    assert again["elapsed_seconds"] == pytest.approx(time.time() - began + 1.0, abs=0.1)
    gained = again["goodput"] * again["elapsed_seconds"] - useful
    assert gained == pytest.approx(2 * STEP, rel=0.5)


def test_data_that_comes_while_the_device_is_busy_is_not_waited_for():
    slow = jax.jit(lambda x: jax.lax.fori_loop(0, 400, lambda _, y: jnp.tanh(y @ x), x))
    matrix = jnp.ones((300, 300))
    jax.block_until_ready(slow(matrix))
    throughput = Throughput()
    with throughput.running(0):
        throughput.run(lambda: (None, {"refused": mean_of(slow(matrix))}), 1)
        with throughput.waiting():
            time.sleep(0.001)
        assert throughput.read(1)["data_wait_seconds"] == 0.0


def test_compiling_is_counted_and_is_no_part_of_a_step():
    @jax.jit
    def compiled(x):
        time.sleep(PAUSE)
        return x + 1

    throughput = Throughput()
    with throughput.running(0):
        throughput.run(lambda: (None, {"refused": mean_of(compiled(jnp.zeros(3)))}), 1)
        told, row = throughput.first_step(), throughput.read(1)
    assert row["compile_seconds"] > 0 and row["step_seconds"] < PAUSE
    assert told.startswith("first step done ") and told.endswith("s of them compiling")


def test_mfu_is_told_only_where_the_peak_is_known():
    mesh = make_mesh(2, 2, 2)
    assert peak_flops(mesh) is None and PEAK_FLOPS["TPU v5 lite"] == 197e12
    assert "mfu" not in run_steps(Throughput(), 1, 1)
    row = run_steps(Throughput(ideal_step_seconds=0.03), 1, 1)
    assert row["mfu"] == pytest.approx(0.03 / row["step_seconds"])
    row |= {"loss": 0.5}
    assert row["host_memory_gib"] > 0.05
    for said in ("loss 0.5000", "s/step", "data 0.2", "compiled", "MFU ", "GiB", "goodput"):
        assert said in format_row(row)


@pytest.mark.parametrize("last", [3, 9], ids=["whole", "cut short"])
def test_chosen_steps_are_traced(tmp_path, last):
    run_steps(Throughput(trace=StepTrace(tmp_path, 2, last)), 1, 4)
    (trace,) = tmp_path.glob("plugins/profile/*/*.xplane.pb")
    names = trace.read_bytes()
    assert b"train" in names and b"step_num" in names


def events(folder):
    """Reads event files without TensorFlow: length, checksum, message, checksum."""
    for path in sorted(folder.glob("events.out.*")):
        file = io.BytesIO(path.read_bytes())
        while head := file.read(12):
            yield Event.FromString(file.read(struct.unpack("<Q", head[:8])[0]))
            file.read(4)


def test_tensorboard_shows_what_the_log_says_and_the_samples(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 3)).astype(np.uint8)
    for first in (0, 2):
        shown = [TensorBoard(tmp_path / "events", first)]
        with MetricsWriter(tmp_path, first_step=first, loggers=shown) as writer:
            for step in range(first + 1, 4):
                writer.write(step, {"loss": 1.0 / step, "reward/fill/structure": 0.5})
            writer.picture(3, "samples", pixels)

    scalars, pictures, purged = {}, {}, []
    for event in events(tmp_path / "events"):
        if event.HasField("session_log"):
            purged.append(event.step)
            scalars = {key: value for key, value in scalars.items() if key[1] < event.step}
        for value in event.summary.value:
            if value.HasField("image"):
                png = io.BytesIO(value.image.encoded_image_string)
                pictures[value.tag, event.step] = np.asarray(Image.open(png))
            else:
                scalars[value.tag, event.step] = value.simple_value
    logged = {
        (name, row["step"]): np.float32(value)
        for row in read_metrics(tmp_path / METRICS)
        for name, value in row.items()
        if name != "step"
    }
    assert scalars == logged and len(logged) == 6
    assert purged[-1] == 3
    assert np.array_equal(pictures["samples", 3], pixels)


def test_where_events_cannot_be_written_the_caller_hears_of_it(tmp_path, monkeypatch):
    """In its own thread: tensorboardX's would end, and the training wait for it for ever."""
    monkeypatch.setattr(loggers, "FLUSH_SECONDS", 0.0)
    logger, before = TensorBoard(tmp_path, 0), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            logger.scalars(1, {"loss": 1.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    logger.close()


def watch_section(**changes):
    fields = {
        "tensorboard": True,
        "wandb": "",
        "profile_steps": (0, 0),
    }
    return FrozenConfigDict({"compilation_cache": "", "logging": fields | changes})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (FrozenConfigDict({}), "config.logging is missing"),
        (watch_section(profile_steps=(3, 2)), r"config.logging.profile_steps is \(3, 2\)"),
        (watch_section(profile_steps=(3,)), "two numbers expected"),
        (watch_section(wandb="mine"), r"package wandb is not installed: pip install -e '.\[wandb"),
    ],
)
def test_what_is_wrong_with_the_section_is_said_before_the_first_stage(
    config, message, monkeypatch
):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match=message):
        prepare_logging(config)


def test_a_stage_is_watched_as_its_section_says(tmp_path):
    config = watch_section(profile_steps=(1, 1))
    prepare_logging(config)
    context = StageContext("rl", config, tmp_path, make_mesh(2, 2, 2))
    folder = tmp_path / "rl"
    with training_logs(context, folder, 0, model_flops=lambda: 1.0) as (throughput, writer):
        row = run_steps(throughput, 1, 1)
        writer.write(1, row)
    # The peak of a CPU is not known.
    assert "mfu" not in row
    assert read_metrics(folder / METRICS) == [{"step": 1} | row]
    assert list(folder.glob("events/*")) and list(folder.glob("profile/plugins/profile/*"))


def test_every_field_of_the_section_is_read():
    source = pathlib.Path(sys.modules[prepare_logging.__module__].__file__).read_text()
    assert set(re.findall(r"section\.(\w+)", source)) == set(watch_section().logging)


def wandb_installed():
    command = [sys.executable, "-c", "import wandb"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not wandb_installed(), reason="needs the extra wandb")
def test_weights_and_biases_keeps_numbers_pictures_and_settings(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    logger = WeightsAndBiases("mine", tmp_path, run="a-1", name="a", config={"seed": 7})
    with MetricsWriter(tmp_path, loggers=[logger]) as writer:
        writer.write(1, {"loss": 0.5})
        writer.picture(1, "samples", np.zeros((2, 2, 3), np.uint8))
    (run,) = tmp_path.glob("wandb/offline-run-*")
    assert run.name.endswith("a-1")
    (record,) = run.glob("*.wandb")
    assert b"loss" in record.read_bytes()
    assert list(run.glob("files/media/images/samples*.png"))
    assert json.loads((tmp_path / METRICS).read_text())["loss"] == 0.5
