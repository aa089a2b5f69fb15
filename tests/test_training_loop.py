"""The loop and its checkpoints: interruption, resumption, refusal, logs. With a tiny real model."""

import functools
import json
import os
import shutil
import signal

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from onereward_jax.common.rng import stream
from onereward_jax.common.user_errors import Stopped
from onereward_jax.parallel import batch_sharding, make_mesh, mesh_jit, replicated, shard_batch
from onereward_jax.parallel.preemption import hearing_signals
from onereward_jax.training.apply_gradients import apply_gradients
from onereward_jax.training.checkpoint import (
    About,
    Checkpointer,
    IncompatibleCheckpoint,
)
from onereward_jax.training.metrics import mean_of
from onereward_jax.training.metrics_jsonl import MetricsWriter, read_metrics
from onereward_jax.training.nonfinite_steps import TooManyRefusedSteps
from onereward_jax.training.optimizer import OptimizerConfig, make_optimizer
from onereward_jax.training.train_loop import EarlyEnd, LoopConfig, Periodic, train
from onereward_jax.training.train_state import abstract_state, place_state, shardings_of

OPTIMIZER = make_optimizer(OptimizerConfig(learning_rate=0.05, warmup_steps=3))
ABOUT = About(must_match={"model": {"width": 4}, "query_version": 1}, config={"rl": {"steps": 6}})
POISON = 13
"""Index of a sample whose target is NaN."""


def abstract(mesh, width=4):
    sharding = NamedSharding(mesh, P("fsdp"))
    params = {"kernel": jax.ShapeDtypeStruct((8, width), jnp.float32, sharding=sharding)}
    return abstract_state(params, OPTIMIZER, mesh, with_ema=True)


def fresh(mesh):
    params = {"kernel": jax.device_put(jnp.ones((8, 4)), NamedSharding(mesh, P("fsdp")))}
    return place_state(params, OPTIMIZER, mesh, with_ema=True)


@functools.cache
def regression(mesh):
    """Least squares with noise on the inputs, drawn from the step's number."""

    def step(state, batch):
        noise = jax.random.normal(stream(0, "noise", state.step), batch["x"].shape)

        def loss_of(params):
            return jnp.mean(((batch["x"] + 0.1 * noise) @ params["kernel"] - batch["y"]) ** 2)

        loss, gradients = jax.value_and_grad(loss_of)(state.params)
        metrics = {"loss": mean_of(loss[None])}
        return apply_gradients(state, loss, gradients, OPTIMIZER, metrics, ema_decay=0.9)

    shardings = shardings_of(abstract(mesh))
    return mesh_jit(
        step,
        mesh,
        donate_argnums=0,
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=(shardings, replicated(mesh)),
    )


def samples(poisoned=False):
    def example(index):
        rng = np.random.default_rng(index)
        x = rng.normal(size=8).astype(np.float32)
        y = np.full(4, np.nan if poisoned and index == POISON else x.sum(), np.float32)
        return {"x": x, "y": y, "index": np.int32(index)}

    return grain.MapDataset.range(32).seed(3).shuffle().map(example).repeat(None)


def data(poisoned=False):
    return iter(samples(poisoned).batch(8).to_iter_dataset())


def run(
    folder, mesh, total, *, batches=None, step=None, state=None, periodic=(), early_end=None,
    **config,
):  # fmt: skip
    batches = data() if batches is None else batches
    config = LoopConfig(total_steps=total, **{"checkpoint_every": 100, "log_every": 2} | config)
    state = fresh(mesh) if state is None else state
    with (
        Checkpointer(folder, ABOUT) as checkpointer,
        MetricsWriter(folder.parent, first_step=int(state.step)) as writer,
    ):
        return train(
            regression(mesh) if step is None else step,
            state,
            batches,
            functools.partial(shard_batch, mesh=mesh),
            config,
            checkpointer,
            writer,
            name="test",
            periodic=periodic,
            early_end=early_end,
        )


def same(first, second):
    return all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    )


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(2, 2, 2)


@pytest.fixture(scope="module")
def whole_run(mesh, tmp_path_factory):
    """State and checkpoint folder (steps 4 and 7) of a run that nobody interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "checkpoints"
    return jax.device_get(run(folder, mesh, 7, checkpoint_every=4)), folder


def test_stopped_by_sigterm_and_resumed_equals_uninterrupted(mesh, whole_run, tmp_path):
    """Bit for bit in all of the state, and in the log."""
    folder = tmp_path / "checkpoints"
    terminate = Periodic(3, lambda state, writer: os.kill(os.getpid(), signal.SIGTERM))
    with hearing_signals(), pytest.raises(Stopped, match="stopped after step 3 of 7"):
        run(folder, mesh, 7, periodic=[terminate])
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL

    batches = data()
    with Checkpointer(folder, ABOUT) as checkpointer:
        state = checkpointer.restore(abstract(mesh), batches)
    assert same(run(folder, mesh, 7, batches=batches, state=state), whole_run[0])
    logs = [read_metrics(path / "metrics.jsonl") for path in (tmp_path, whole_run[1].parent)]
    resumed, whole = ({row["step"]: row["loss"] for row in log if row["step"] > 4} for log in logs)
    assert resumed == whole and len(whole) == 2


def test_an_early_end_is_the_last_step_and_stays_one(mesh, whole_run, tmp_path):
    """Looked for at steps 2 and 4: saved, logged, and not passed by a second run."""
    folder, ran = tmp_path / "checkpoints", []
    ends = EarlyEnd(2, lambda state: "far enough" if int(state.step) >= 3 else "")
    side = Periodic(100, lambda state, writer: ran.append(int(state.step)))
    state = run(folder, mesh, 7, early_end=ends, periodic=[side])
    with Checkpointer(whole_run[1], ABOUT) as checkpointer:
        assert same(checkpointer.restore(abstract(mesh), data(), 4), state)
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [2, 4]
    batches = data()
    with Checkpointer(folder, ABOUT) as checkpointer:
        restored = checkpointer.restore(abstract(mesh), batches)
    again = run(folder, mesh, 7, batches=batches, state=restored, early_end=ends, periodic=[side])
    assert same(again, state) and ran == [4]


def test_what_a_killed_save_has_left_is_removed(whole_run, tmp_path):
    folder = tmp_path / "checkpoints"
    shutil.copytree(whole_run[1], folder)
    draft = folder / "9.orbax-checkpoint-tmp"
    shutil.copytree(folder / "7", draft)
    with Checkpointer(folder, ABOUT) as checkpointer:
        assert checkpointer.latest_step() == 7 and not draft.exists()


def test_lines_after_the_checkpoint_are_not_written_twice(tmp_path):
    """A crash loses the steps since the last checkpoint; their lines go with them, torn or not."""
    with MetricsWriter(tmp_path) as writer:
        for step in range(1, 6):
            writer.write(step, {"loss": 1.0 / step})
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text()[:-4])
    with MetricsWriter(tmp_path, first_step=3) as writer:
        writer.write(4, {"loss": 0.5})
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3, 4]
    assert read_metrics(path)[-1]["loss"] == 0.5


@pytest.mark.parametrize("sizes", [(1, 8, 1), (1, 1, 1)])
def test_restores_onto_another_mesh(whole_run, sizes):
    state, folder = whole_run
    other = make_mesh(*sizes, devices=jax.devices()[: np.prod(sizes)])
    with Checkpointer(folder, ABOUT) as checkpointer:
        restored = checkpointer.restore(abstract(other), data())
    assert same(restored, state)
    assert shardings_of(restored) == shardings_of(abstract(other))


def test_only_complete_checkpoints_are_found(mesh, whole_run, tmp_path):
    """A crash while writing leaves the temporary name behind. The one before it was written while
    training went on, and is whole."""
    folder = tmp_path / "checkpoints"
    shutil.copytree(whole_run[1], folder)
    (folder / "7").rename(folder / "7.orbax-checkpoint-tmp-1")
    with Checkpointer(folder, ABOUT) as checkpointer:
        assert checkpointer.latest_step() == 4
        batches = data()
        state = checkpointer.restore(abstract(mesh), batches)
    for _ in range(3):
        state, _ = regression(mesh)(state, shard_batch(next(batches), mesh))
    assert same(state, whole_run[0])


@pytest.mark.parametrize("part", ["state", "about", "data"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(mesh, whole_run, tmp_path, part):
    """It is moved aside, said, and written anew when training comes there again."""
    folder = tmp_path / "checkpoints"
    shutil.copytree(whole_run[1], folder)
    for path in (folder / "7" / part).rglob("*"):
        if path.is_file() and path.stat().st_size:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    batches = data()
    with Checkpointer(folder, ABOUT) as checkpointer:
        state, complaints = checkpointer.restore_newest(abstract(mesh), batches)
        assert int(state.step) == 4 and checkpointer.latest_step() == 4
    (complaint,) = complaints
    assert complaint.startswith(f"checkpoint 7 cannot be read and is now {folder}.damaged/7: ")
    assert same(run(folder, mesh, 7, batches=batches, state=state), whole_run[0])
    with Checkpointer(folder, ABOUT) as checkpointer:
        assert checkpointer.latest_step() == 7
        assert same(checkpointer.restore(abstract(mesh), data()), whole_run[0])


def test_without_a_checkpoint_to_read_there_is_no_state(mesh, tmp_path):
    with Checkpointer(tmp_path / "none", ABOUT) as checkpointer:
        assert checkpointer.restore_newest(abstract(mesh), data()) == (None, [])


def test_what_does_not_fit_is_named(mesh, whole_run, tmp_path):
    other = About(must_match={"model": {"width": 4}, "query_version": 2})
    with Checkpointer(whole_run[1], other) as checkpointer:
        with pytest.raises(IncompatibleCheckpoint, match="query_version = 1, now it is 2"):
            checkpointer.restore(abstract(mesh), data())
    with Checkpointer(whole_run[1], ABOUT) as checkpointer:
        with pytest.raises(IncompatibleCheckpoint, match=r"kernel has shape \(8, 4\)"):
            checkpointer.restore(abstract(mesh, width=6), data())
    with Checkpointer(tmp_path / "empty", ABOUT) as checkpointer:
        with pytest.raises(FileNotFoundError, match="empty: no complete checkpoint"):
            checkpointer.restore(abstract(mesh), data())


def test_refused_steps_pass_up_to_the_allowed_number_then_stop_with_their_samples(mesh, tmp_path):
    """Of the four batches that make an epoch one is poisoned: step 5 is the latest second time."""
    state = run(tmp_path / "a" / "checkpoints", mesh, 8, batches=data(True), max_refused=2)
    assert int(state.refused) == 2
    assert np.isfinite(state.params["kernel"]).all()
    with pytest.raises(TooManyRefusedSteps) as stop:
        run(tmp_path / "b" / "checkpoints", mesh, 12, batches=data(True), max_refused=1)
    told = str(stop.value)
    assert "in 2 steps" in told and "1 are allowed" in told and "the learning rate" in told
    refused = json.loads((tmp_path / "b" / "refused.json").read_text())
    assert [POISON in one["samples"] for one in refused] == [True, True]
    assert str(tmp_path / "b" / "refused.json") in told and str(refused[0]["step"]) in told
    with Checkpointer(tmp_path / "b" / "checkpoints", ABOUT) as checkpointer:
        saved = checkpointer.restore(abstract(mesh), data())
    assert int(saved.refused) == 2
    assert np.isfinite(saved.params["kernel"]).all()
