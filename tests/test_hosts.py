"""Several processes as one run: meeting, waiting, stopping, and the same numbers as one alone."""

import concurrent.futures
import shutil
import signal
import time

import numpy as np
import pytest
from host_program import LAYERS
from processes import codes, free_address, said, start
from test_training_loop import ABOUT, abstract, data, fresh, regression

from onereward_jax.parallel import make_mesh, shard_batch
from onereward_jax.parallel.distributed import find_cluster_config
from onereward_jax.parallel.startup_check import PeerLost, names_of, rendezvous
from onereward_jax.training.checkpoint import Checkpointer
from onereward_jax.training.metrics_jsonl import read_metrics

COUNT, SILENCE, STEPS = 2, 30, 12
PATIENCE = 600
"""Seconds for what takes ten on a machine with nothing else to do."""


def start_all(scenario, folder, count=COUNT):
    folder.mkdir(exist_ok=True)
    cluster = {"JAX_COORDINATOR_ADDRESS": free_address(), "JAX_NUM_PROCESSES": str(count)}
    return [
        start(
            ["tests/host_program.py", scenario, str(folder)],
            folder,
            index=index,
            devices=8 // count,
            JAX_PROCESS_ID=str(index),
            **cluster,
        )
        for index in range(count)
    ]


def run_all(scenario, folder, count=COUNT):
    return codes(start_all(scenario, folder, count), PATIENCE)


def wait_for_a_checkpoint(folder, processes):
    def is_there():
        return any(path.name.isdecimal() for path in (folder / "checkpoints").glob("*"))

    wait_until(is_there, folder, processes)


def wait_until(is_there, folder, processes):
    deadline = time.monotonic() + PATIENCE
    while not is_there():
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in processes), said(folder, 0)
        time.sleep(0.05)


def losses(folder):
    return {row["step"]: row["loss"] for row in read_metrics(folder / "metrics.jsonl")}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Losses of one process with the same eight devices."""
    mesh, batches, found = make_mesh(data=2, fsdp=-1), data(), {}
    state = fresh(mesh)
    for step in range(1, STEPS + 1):
        state, measured = regression(mesh)(state, shard_batch(next(batches), mesh))
        found[step] = float(measured["loss"].total / measured["loss"].count)
    return found


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_several_processes_learn_what_one_learns_and_one_reads_their_checkpoint(
    alone, tmp_path, count
):
    assert run_all("train", tmp_path, count) == [0] * count, said(tmp_path, 0)
    assert losses(tmp_path) == pytest.approx(alone, rel=1e-6)
    batches = data()
    with Checkpointer(tmp_path / "checkpoints", ABOUT) as checkpointer:
        state = checkpointer.restore(abstract(make_mesh(data=1, fsdp=4, tensor=2)), batches)
    assert int(state.step) == STEPS and batches.get_state()["next_index"] == STEPS
    # what process 0 saves of a leaf that no process has as a whole
    np.testing.assert_array_equal(np.load(tmp_path / "layers.npy"), LAYERS)


@pytest.mark.slow
def test_two_processes_go_on_from_the_checkpoint_of_four(alone, tmp_path):
    assert run_all("train", tmp_path, 4) == [0] * 4, said(tmp_path, 0)
    for path in (tmp_path / "checkpoints").glob("*"):
        if path.name.isdecimal() and int(path.name) > STEPS // 2:
            shutil.rmtree(path)
    assert run_all("train", tmp_path, 2) == [0] * 2, said(tmp_path, 0)
    assert losses(tmp_path) == pytest.approx(alone, rel=1e-6)
    assert f"{STEPS // 2}/{STEPS}" in said(tmp_path, 0)  # where the progress bar began


def test_sigterm_to_one_process_stops_all_at_the_same_step(tmp_path):
    processes = start_all("endless", tmp_path)
    wait_for_a_checkpoint(tmp_path, processes)
    processes[1].send_signal(signal.SIGTERM)
    assert codes(processes, PATIENCE) == [75, 75], said(tmp_path, 0)
    last = [said(tmp_path, index).split("stopped after step ")[1].split()[0] for index in (0, 1)]
    assert last[0] == last[1] == str(max(losses(tmp_path)))
    assert (tmp_path / "checkpoints" / last[0]).is_dir()


def test_sigterm_to_one_process_stops_what_another_does_alone(tmp_path):
    processes = start_all("alone", tmp_path)
    wait_until((tmp_path / "0").exists, tmp_path, processes)
    processes[1].send_signal(signal.SIGTERM)
    assert codes(processes, PATIENCE) == [75, 75], said(tmp_path, 0)
    units = 1 + int((tmp_path / "0").read_text())
    for index in (0, 1):
        assert f"data: stopped at {units} triplets, as requested" in said(tmp_path, index)


def test_sigterm_to_one_process_ends_all_in_the_midst_of_one_long_piece(tmp_path):
    processes = start_all("one long piece", tmp_path)
    for index in "01":
        wait_until((tmp_path / index).exists, tmp_path, processes)
    processes[1].send_signal(signal.SIGTERM)
    assert codes(processes, PATIENCE) == [75, 75], said(tmp_path, 0)
    assert "stopped as requested; run the same command to resume" in said(tmp_path, 0)


@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_after_kill_9_the_others_stop_and_a_restart_goes_on(alone, tmp_path, victim):
    processes = start_all("slow", tmp_path)
    wait_for_a_checkpoint(tmp_path, processes)
    processes[victim].kill()
    killed = time.monotonic()
    found = codes(processes, PATIENCE)
    assert time.monotonic() - killed < 4 * SILENCE
    assert found[victim] == -signal.SIGKILL and found[1 - victim] == -signal.SIGABRT
    assert max(losses(tmp_path)) < STEPS
    assert run_all("train", tmp_path) == [0, 0], said(tmp_path, 0)
    assert losses(tmp_path) == pytest.approx(alone, rel=1e-6)


def test_a_process_that_does_not_come_is_named(tmp_path):
    found = run_all("late", tmp_path)
    assert found[0] == 75 and found[1] != 0
    assert "process 1 (" in said(tmp_path, 0)
    assert "did not reach 'dinner' within 2 s" in said(tmp_path, 0)
    assert all("answered by process 0" in said(tmp_path, index) for index in (0, 1))
    # Each sample is written by one process, as process 0 is told by all.
    assert "own rows: ['[0, 1, 2, 3]', '[4, 5, 6, 7]']" in said(tmp_path, 0)
    assert "own rows: ['[0, 1, 2, 3, 4, 5, 6, 7]', '[]']" in said(tmp_path, 0)
    assert said(tmp_path, 1).count("own rows: []") == 2


def test_the_mistake_of_one_process_ends_all_with_its_sentence(tmp_path):
    assert run_all("mistaken", tmp_path) == [2, 2], said(tmp_path, 0)
    sentence = "config.data.path: there is no folder photos"
    assert said(tmp_path, 1).strip().endswith(f"error: {sentence}")
    assert f"failed: {sentence}" in said(tmp_path, 0)


def test_when_one_process_waits_for_people_all_end_and_none_calls_it_an_error(tmp_path):
    assert run_all("asking", tmp_path) == [10, 10], said(tmp_path, 0)
    for index in range(COUNT):
        assert said(tmp_path, index).strip() == "annotate: 1 of 2 questions is answered"


def call_all(count, indices, seconds, **counts):
    address = free_address()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        calls = [
            pool.submit(rendezvous, address, counts.get(f"p{index}", count), index, seconds, 75)
            for index in indices
        ]
        return [call.exception() or call.result() for call in calls]


def test_the_roll_call_names_who_is_missing():
    everybody = call_all(3, (2, 0, 1), 30.0)
    assert len(everybody[0]) == 3 and everybody[0] == everybody[1] == everybody[2]
    for error in call_all(4, (0, 2), 2.0):
        assert isinstance(error, PeerLost) and error.code == 75
        assert str(error) == "processes 1, 3 of 4 did not start within 2 s"
    (error,) = call_all(2, (1,), 1.0)
    assert str(error).startswith("process 1 cannot reach process 0 at localhost:")
    for error in call_all(2, (0, 1), 20.0, p1=3):
        assert "was started as one of 3 processes, process 0 as one of 2" in str(error)
    assert names_of(range(20), 32).endswith("7, and 12 more of 32")


@pytest.mark.parametrize(
    ("given", "environment", "message"),
    [
        ((None, None, None), {}, "found neither Cloud TPU, GKE nor Slurm; set --coordinator="),
        (("host:1", None, 0), {}, "--coordinator, --process_index without --process_count"),
        (("host", 2, 0), {}, "--coordinator is 'host': host:port expected"),
        (("host:1", 2, 2), {}, "--process_index is 2: --process_count is 2, so 0 ... 1 expected"),
        ((None,) * 3, {"JAX_PROCESS_ID": "0"}, "JAX_PROCESS_ID without JAX_COORDINATOR_ADDRESS, "),
        (
            (None,) * 3,
            {"JAX_COORDINATOR_ADDRESS": "h:1", "JAX_NUM_PROCESSES": "x", "JAX_PROCESS_ID": "0"},
            "JAX_NUM_PROCESSES is 'x': an integer expected",
        ),
    ],
)
def test_a_start_that_cannot_be_is_one_sentence(given, environment, message):
    with pytest.raises(ValueError, match=message.replace("...", r"\.\.\.")):
        find_cluster_config(*given, environment=environment)
