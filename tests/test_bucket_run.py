"""A work folder in a bucket, against a real server: nothing lost, nothing half-made taken."""

import errno
import os
import pathlib
import signal
import subprocess
import sys
import time

import grain
import jax
import jax.numpy as jnp
import numpy as np
import processes
import pytest
from bucket_hosts_program import candidate
from ml_collections import ConfigDict, FrozenConfigDict

from onereward_jax.annotation import PreferenceStore
from onereward_jax.chain import Stage, StageContext, allowed_values, run_chain
from onereward_jax.chain.allowed_values import Rule, whole
from onereward_jax.chain.output_folders import open_workdir
from onereward_jax.chain.staleness import Effect, how, output
from onereward_jax.chain.workdir_lock import WorkdirLock, WorkdirLocked
from onereward_jax.parallel import make_mesh
from onereward_jax.stages.preference_stores import LINES, STORE, open_store, read_store, save_lines
from onereward_jax.storage import BucketFolder
from onereward_jax.training.checkpoint import About, Checkpointer
from onereward_jax.training.train_state import TrainState


@pytest.fixture
def host(tmp_path, monkeypatch):
    """Call it to be on another host: one without any copies."""

    def change(name: str) -> pathlib.Path:
        monkeypatch.setenv("ONEREWARD_COPIES", str(tmp_path / name))
        return tmp_path / name

    change("first")
    return change


def numbers(context: StageContext) -> dict[str, int]:
    assert not list(context.folder.glob("*.txt")), "it does not resume, so the folder is empty"
    for number in range(context.config.numbers.size):
        (context.folder / f"{number}.txt").write_text(str(number))
    return {"numbers": context.config.numbers.size}


DOUBLED = []
"""What the stage below has made anew."""


def double(context: StageContext) -> dict[str, int]:
    DOUBLED.clear()
    for path in sorted(context.output("numbers").glob("*.txt")):
        if not (context.folder / path.name).exists():
            DOUBLED.append(path.name)
            (context.folder / path.name).write_text(str(2 * int(path.read_text())))
        if path.stem == str(context.config.double.fail_after):
            raise ValueError("interrupted")
    return {"total": sum(int(path.read_text()) for path in context.folder.glob("*.txt"))}


CHAIN = (
    Stage("numbers", "numbers", numbers, fields=(output("numbers"),)),
    Stage("double", "double", double, fields=(how("double"),), resumes=True,
          reads={"numbers": Effect.OUTPUT}),
)  # fmt: skip


@pytest.fixture
def config(monkeypatch):
    monkeypatch.setitem(allowed_values.RULES, "numbers.size", whole(0))
    monkeypatch.setitem(allowed_values.RULES, "double.fail_after", Rule("", lambda value: True))
    return ConfigDict(
        {"seed": 0, "stages": ("numbers", "double"), "numbers": {"size": 4},
         "double": {"fail_after": -1}}
    )  # fmt: skip


def run(config: ConfigDict, bucket: BucketFolder) -> tuple[list[bool], int]:
    """Which stages ran, and what came of the last."""
    outcomes = run_chain(config, bucket.url, make_mesh(data=jax.device_count(), fsdp=1), CHAIN)
    return [one.ran for one in outcomes], outcomes[-1].record.results["total"]


def test_a_chain_in_a_bucket_goes_on_from_host_to_host(bucket, host, config, capsys):
    config.double.fail_after = 1
    with pytest.raises(ValueError, match="interrupted"):
        run(config, bucket)
    host("second")
    config.double.fail_after = -1
    assert run(config, bucket) == ([False, True], 12)
    assert DOUBLED == ["2.txt", "3.txt"], "what another host had done is done"
    folder = host("third")
    assert run(config, bucket) == ([False, False], 12)
    assert not list(folder.rglob("*.txt")), "nothing is copied that nobody reads"
    config.numbers.size = 3
    assert run(config, bucket) == ([True, True], 6)
    moved = f"moved to {bucket}/numbers.old-1 (config.numbers.size: 4 -> 3)"
    assert moved in capsys.readouterr().out
    host("fourth")
    config.numbers.size = 4
    assert run(config, bucket) == ([False, False], 12), "former output is taken back"
    assert bucket.read("double/3.txt") == b"6" and bucket.read("double.old-2/3.txt") is None
    # A stage whose record is gone counts as not done, whatever else is there.
    bucket.delete(["double/stage.json"])
    assert run(config, bucket) == ([False, True], 12) and len(DOUBLED) == 4
    assert "lock.json" not in bucket.files()


def test_one_run_at_a_time_holds_a_bucket(bucket, monkeypatch):
    with WorkdirLock(bucket, beat_seconds=0.1) as held:
        with pytest.raises(WorkdirLocked, match=rf"{bucket} is in use by process {os.getpid()}"):
            WorkdirLock(bucket).__enter__()
        # Seen from another host it lives while its beat moves on; one that is dead is followed.
        monkeypatch.setattr("onereward_jax.chain.workdir_lock.system_name", lambda: "another")
        with pytest.raises(WorkdirLocked, match="is in use by"):
            WorkdirLock(bucket, beat_seconds=0.3).__enter__()
        held._ended.set()
        with WorkdirLock(bucket, beat_seconds=0.1):
            assert bucket.read("lock.json")
        assert bucket.read("lock.json") is None


def context_of(bucket: BucketFolder, stage: str) -> StageContext:
    folders = open_workdir(bucket.url)
    mesh = make_mesh(data=jax.device_count(), fsdp=1)
    context = StageContext(stage, FrozenConfigDict(), folders.workdir, mesh, folders=folders)
    folders.fetch([], stage, alone=False)
    context.folder.mkdir(parents=True, exist_ok=True)
    return context


def test_answers_are_rebuilt_on_another_host_from_their_lines(bucket, host):
    first = context_of(bucket, "candidates")
    with open_store(first) as store:
        store.add_candidates(map(candidate, range(3)))
        save_lines(first)  # in a run another thread does, now and then
        first.folders.copy.publish("candidates")
        store.add_candidates([candidate(3)])  # the host is lost before the next time
    assert sorted(bucket.list("candidates")) == [f"candidates/{LINES}"], "no database in a bucket"
    host("second")
    second = context_of(bucket, "candidates")
    with open_store(second) as store:
        assert store.candidates() == [candidate(index) for index in range(3)]
        store.add_candidates(map(candidate, range(2, 5)))
    # The first host comes back with a database of its own: the bucket is the truth.
    save_lines(second)
    second.folders.copy.publish("candidates")
    host("first")
    first = context_of(bucket, "candidates")
    with read_store(first, "candidates") as store, open_store(first) as own:
        assert store.candidates() == own.candidates() == [candidate(index) for index in range(5)]


def test_on_a_mount_the_database_stays_on_this_host(tmp_path, host, monkeypatch):
    mounts = tmp_path / "mounts"
    mounts.write_text(f"team {tmp_path}/mounted fuse.gcsfuse rw 0 0\n")
    monkeypatch.setattr("onereward_jax.chain.output_folders.MOUNTS", mounts)
    folders = open_workdir(tmp_path / "mounted" / "run")
    assert "fuse.gcsfuse mount of team: databases stay" in folders.check_mount()
    with pytest.MonkeyPatch.context() as patch:
        refused = OSError(errno.EMFILE, "Too many open files")  # of a folder with too many files
        patch.setattr(pathlib.Path, "rename", lambda *_: (_ for _ in ()).throw(refused))
        with pytest.raises(ValueError, match="cannot be renamed .*--rename-dir-limit"):
            folders.check_mount()
    assert not list(folders.workdir.iterdir())
    mesh = make_mesh(data=jax.device_count(), fsdp=1)
    context = StageContext("candidates", FrozenConfigDict(), folders.workdir, mesh, folders=folders)
    context.folder.mkdir(parents=True)
    with folders.kept_up("candidates", lambda: save_lines(context)), open_store(context) as store:
        store.add_candidates([candidate(0)])
    assert [path.name for path in context.folder.iterdir()] == [LINES]
    (database,) = host("first").rglob(STORE)
    with read_store(context, "candidates") as store, PreferenceStore(database) as kept:
        assert store.candidates() == kept.candidates() == [candidate(0)]


def start_of_state(value: float) -> TrainState:
    ones = {"weight": jnp.full((1 << 20, 8), value)}
    return TrainState(
        step=jnp.int32(int(value)), refused=jnp.int32(0), params=ones, opt_state=(), ema=None
    )


def iterator() -> grain.DatasetIterator:
    return iter(grain.MapDataset.range(100).to_iter_dataset())


SAVING = """
import pathlib, sys
sys.path.insert(0, "tests")
from test_bucket_run import About, Checkpointer, iterator, start_of_state
with Checkpointer(sys.argv[1], About({})) as checkpointer:
    checkpointer.save(start_of_state(1.0), iterator())
    checkpointer.wait()
    checkpointer.save(start_of_state(2.0), iterator())
"""


# gcsfs closes its sessions when the loop they were opened in, one of Orbax, has gone.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_save_that_was_killed_is_never_picked(bucket):
    folder = f"{bucket}/checkpoints"
    process = subprocess.Popen(
        [sys.executable, "-c", SAVING, folder], cwd=processes.ROOT, env=os.environ
    )
    while not bucket.list("checkpoints/2"):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = bucket.list("checkpoints/2")
    assert left and "checkpoints/2/commit_success.txt" not in left, "it was to be killed before"
    data = iterator()
    with Checkpointer(folder, About({})) as checkpointer:
        assert checkpointer.latest_step() == 1
        state, complaints = checkpointer.restore_newest(start_of_state(0.0), data)
        np.testing.assert_array_equal(state.params["weight"], 1.0)
        assert not complaints
        checkpointer.save(start_of_state(2.0), data)
        checkpointer.wait()
        state = checkpointer.restore(start_of_state(0.0), data)
        np.testing.assert_array_equal(state.params["weight"], 2.0)
    # One that was complete and is damaged is moved aside, and the one before is read.
    whole = bucket.list("checkpoints/2")
    bucket.delete(name for name in whole if "/d/" in name)
    with Checkpointer(folder, About({})) as checkpointer:
        state, (complaint,) = checkpointer.restore_newest(start_of_state(0.0), data)
        assert int(state.step) == 1 and f"{bucket}/checkpoints.damaged/2" in complaint
        assert checkpointer.latest_step() == 1
    assert bucket.read("checkpoints.damaged/2/commit_success.txt") is not None


def test_hosts_with_several_processes_share_one_copy(bucket, tmp_path):
    address = processes.free_address()
    started = [
        processes.start(
            ["tests/bucket_hosts_program.py", bucket.url],
            tmp_path,
            index=index,
            devices=1,
            JAX_COORDINATOR_ADDRESS=address,
            JAX_NUM_PROCESSES="3",
            JAX_PROCESS_ID=str(index),
            ONEREWARD_COPIES=str(tmp_path / ("a" if index < 2 else "b")),
        )
        for index in range(3)
    ]
    codes = processes.codes(started, 120.0)
    assert codes == [0, 0, 0], "\n".join(processes.said(tmp_path, index) for index in range(3))
    assert [bucket.read(f"read/{index}.txt") for index in range(3)] == [b"3"] * 3
