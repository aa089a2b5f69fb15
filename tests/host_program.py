"""What one of several processes does in test_hosts.py: host_program.py <scenario> <folder>."""

import pathlib
import sys
import time

import jax
import numpy as np
import test_training_loop as tiny
from jax.sharding import NamedSharding, PartitionSpec
from stop_program import one_long_piece

from onereward_jax.common.user_errors import (
    TRY_AGAIN,
    WAITING,
    Stopped,
    WaitingForPeople,
    exit_with,
)
from onereward_jax.data.pipeline import batches_of_rows
from onereward_jax.parallel import (
    barrier,
    distributed,
    host_local_rows,
    local_rows,
    make_mesh,
    shard_batch,
)
from onereward_jax.parallel.gather_layers import layers_on_writer
from onereward_jax.parallel.preemption import hearing_signals, stop_points
from onereward_jax.parallel.startup_check import PeerLost
from onereward_jax.training.checkpoint import Checkpointer
from onereward_jax.training.metrics_jsonl import MetricsWriter
from onereward_jax.training.train_loop import LoopConfig, train

SILENCE = 30.0
STEPS = 12
LAYERS = np.arange(3 * 8 * 6, dtype=np.float32).reshape(3, 8, 6)
FAR = 100_000
"""Steps until the end that is not waited for."""


def run(folder: pathlib.Path, steps: int, mesh, pause: float = 0.0) -> None:
    """The regression of test_training_loop.py, from the newest checkpoint if there is one."""
    batches = batches_of_rows(tiny.samples(), 8, local_rows(8, mesh))
    data = iter(batches.to_iter_dataset())

    def place(batch):
        time.sleep(pause)
        return shard_batch(batch, mesh)

    with Checkpointer(folder / "checkpoints", tiny.ABOUT) as checkpointer:
        resumes = checkpointer.latest_step() is not None
        state = checkpointer.restore(tiny.abstract(mesh), data) if resumes else tiny.fresh(mesh)
        with MetricsWriter(folder, first_step=int(state.step)) as writer:
            train(
                tiny.regression(mesh),
                state,
                data,
                place,
                LoopConfig(steps, log_every=1, checkpoint_every=3),
                checkpointer,
                writer,
                name="test",
            )


def own_row_numbers(mesh) -> list[int]:
    """Which of eight samples this process would write."""
    rows = local_rows(8, mesh)
    found = list(host_local_rows(shard_batch({"number": rows}, mesh)["number"]))
    assert [int(one.fetch()) for one in found] == [one.row for one in found]
    return [one.row for one in found]


def save_layers(folder: pathlib.Path, mesh) -> None:
    """`LAYERS`, spread over devices of all processes, by the one that writes."""
    sharding = NamedSharding(mesh, PartitionSpec(None, "fsdp", "data"))
    leaf = jax.make_array_from_callback(LAYERS.shape, sharding, lambda index: LAYERS[index])
    found = list(layers_on_writer(leaf, True, LAYERS.dtype))
    if jax.process_index():
        assert found == [None] * len(LAYERS)
    else:
        np.save(folder / "layers.npy", np.stack(found))


def units_alone(folder: pathlib.Path) -> None:
    """What process 0 does while the others wait."""
    with stop_points("data", alone=True) as stop:
        for unit in range(10_000):
            time.sleep(0.02)
            (folder / "0").write_text(str(unit))
            stop.if_asked(f"at {unit + 1} triplets")


def main(scenario: str, folder: pathlib.Path) -> None:
    """Ends as `main.py` does."""
    try:
        cluster = distributed.find_cluster_config()
        distributed.initialize(cluster, SILENCE)
        mesh = make_mesh(data=2, fsdp=-1)
        if scenario == "train":
            run(folder, STEPS, mesh)
            save_layers(folder, mesh)
        if scenario == "slow":
            run(folder, STEPS, mesh, pause=0.5)
        if scenario == "endless":
            with hearing_signals():
                run(folder, FAR, mesh)
        if scenario == "alone":
            with hearing_signals():
                if cluster.index == 0:
                    units_alone(folder)
                barrier("end of data", seconds=None)
        if scenario == "one long piece":
            with hearing_signals():
                (folder / f"{cluster.index}").touch()
                one_long_piece()
        if scenario == "late":
            print(
                distributed.shared_value(
                    "a question", lambda: f"answered by process {cluster.index}"
                )
            )
            for sizes in ((1, 4, 2), (1, 1, 8)):
                own = f"{own_row_numbers(make_mesh(*sizes))}"
                print(f"own rows: {distributed.gather_on_writer(own)}")
            if cluster.index == 1:
                time.sleep(6)
            barrier("dinner", seconds=2.0)
        if scenario == "mistaken":
            if cluster.index == 1:
                raise FileNotFoundError("config.data.path: there is no folder photos")
            distributed.gather_on_writer("all is well")
        if scenario == "asking":
            if cluster.index == 0:
                raise WaitingForPeople("annotate: 1 of 2 questions is answered")
            barrier("dinner")
    except Stopped as stop:
        print(stop)
        sys.exit(TRY_AGAIN)
    except WaitingForPeople as waiting:
        print(waiting)
        sys.exit(WAITING)
    except PeerLost as lost:
        print(lost)
        sys.exit(lost.code)
    except FileNotFoundError as error:
        exit_with(error)


if __name__ == "__main__":
    with distributed.shutdown_together(orderly=(TRY_AGAIN,), silence=SILENCE):
        main(sys.argv[1], pathlib.Path(sys.argv[2]))
