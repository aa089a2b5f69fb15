"""Memory while a trained model is saved, on the devices and on the host, at one and two processes.

    python benchmarks/saving.py --folder /tmp/saved [--processes 1 2] [--double 3] [--single 8]

A training state of a transformer with half of FLUX's width (parameters, average and both Adam
moments, float32) is sharded over eight virtual devices and saved as at the end of the stage `rl`:
the moments are freed, then policy and average are written as safetensors. The claims: devices hold
at most the rest of the training state and one layer of one leaf; the host overhead is at most one
file of the model plus a constant. The files of all runs are equal.

On CPU, device memory is host memory. Device memory is measured twice: the buffers of all live
arrays, sampled every two milliseconds by a thread, and the memory that the compiler plans for each
called function, without its arguments. Host memory is the growth of the peak resident memory
(VmHWM, reset before saving), so it includes the devices' memory while saving. For comparison, a
checkpoint of the whole state is written first. Not visible on CPU: for devices with their own
memory, Orbax first copies a process's shards of the state to the host.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--folder", type=Path, required=True, help="for what is saved; emptied")
parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="one run for each")
parser.add_argument("--devices", type=int, default=8, help="virtual CPU devices of all processes")
parser.add_argument("--tensor", type=int, default=2, help="of them, size of the mesh axis tensor")
parser.add_argument("--heads", type=int, default=12, help="FLUX has 24; 128 numbers each")
parser.add_argument("--double", type=int, default=3, help="double-stream blocks")
parser.add_argument("--single", type=int, default=8, help="single-stream blocks")
parser.add_argument("--file-mib", type=int, default=1024, help="largest file of the model")
parser.add_argument("--index", type=int, help=argparse.SUPPRESS)
ARGUMENTS = parser.parse_args()
COUNT = ARGUMENTS.processes[0]
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} "
    f"--xla_force_host_platform_device_count={ARGUMENTS.devices // COUNT}"
)

import jax
import jax.numpy as jnp

from onereward_jax.convert import FLUX, save_params
from onereward_jax.convert.tensor_names import flat_leaves, plan
from onereward_jax.models.flux import FluxConfig, FluxTransformer
from onereward_jax.parallel import abstract_arrays, distributed, is_writer, make_mesh, mesh_jit
from onereward_jax.parallel.cpu_threads import set_cpu_threads
from onereward_jax.parallel.gather_layers import part_function, piece_function
from onereward_jax.training.checkpoint import About, Checkpointer
from onereward_jax.training.optimizer import OptimizerConfig, make_optimizer
from onereward_jax.training.train_state import TrainState, place_state, shardings_of

CONFIG = dict(
    _class_name="FluxTransformer2DModel",
    in_channels=384,
    out_channels=64,
    guidance_embeds=True,
    num_attention_heads=ARGUMENTS.heads,
    num_layers=ARGUMENTS.double,
    num_single_layers=ARGUMENTS.single,
)
CONSTANT = 256 << 20
"""Allowed host overhead besides one file: gathered layers, compiled code, the heap."""


def abstract_transformer(mesh: Any) -> Any:
    """Shapes and shardings of the transformer's parameters."""
    config = FluxConfig.from_dict(CONFIG)
    ids, image = jnp.zeros((1, 3)), jnp.zeros((1, 1, config.in_channels))
    text, time_step = jnp.zeros((1, 1, config.joint_attention_dim)), jnp.zeros(1)
    pooled = jnp.zeros((1, config.pooled_projection_dim))
    model = FluxTransformer(config)
    boxed = jax.eval_shape(
        lambda: model.init(jax.random.key(0), image, text, pooled, time_step, ids, ids, time_step)
    )
    return abstract_arrays(boxed["params"], mesh)


def first_state(abstract: Any, mesh: Any) -> TrainState:
    """Parameters that tell layers, rows and columns apart; made in their shards."""

    def numbers(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        along = (jax.lax.broadcasted_iota(jnp.float32, leaf.shape, d) for d in range(leaf.ndim))
        return sum((d + 1) * one for d, one in enumerate(along)) * 1e-4

    make = mesh_jit(
        lambda: jax.tree.map(numbers, abstract), mesh, out_shardings=shardings_of(abstract)
    )
    return place_state(make(), make_optimizer(OptimizerConfig()), mesh, with_ema=True)


def resident(field: str) -> int:
    """VmRSS or VmHWM of this process in bytes."""
    text = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(rf"{field}:\s+(\d+) kB", text)[1])


def array_bytes() -> int:
    """Of all arrays on the device of this process that holds most; shared buffers count once."""
    held: dict[jax.Device, dict[int, int]] = {}
    for array in jax.live_arrays():
        if not array.is_deleted():
            for shard in array.addressable_shards:
                buffers = held.setdefault(shard.device, {})
                buffers[shard.data.unsafe_buffer_pointer()] = shard.data.nbytes
    return max((sum(buffers.values()) for buffers in held.values()), default=0)


class Watch(threading.Thread):
    """Highest figures from its start to `finish`.

    Attributes:
      arrays: bytes of the arrays that exist on a device.
      host: growth of the resident memory.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
        self._before, self.arrays, self.host = resident("VmRSS"), array_bytes(), 0
        self._ended = threading.Event()
        self.start()

    def run(self) -> None:
        """Looks every two milliseconds."""
        while not self._ended.wait(0.002):
            self.arrays = max(self.arrays, array_bytes())

    def finish(self) -> None:
        """Stops."""
        self._ended.set()
        self.join()
        self.host = resident("VmHWM") - self._before


def planned(leaves: dict[str, Any]) -> int:
    """Peak device memory of any compiled function of saving, without its arguments."""
    most, number = 0, jax.ShapeDtypeStruct((), jnp.int32)
    for entry in plan(leaves, FLUX, CONFIG)[0]:
        leaf = leaves[entry.path]
        if COUNT == 1:
            function = part_function(leaf.sharding, leaf.shape, entry.stacked, leaf.dtype)
            lowered = function.lower(leaf, number)
        else:
            function, _ = piece_function(leaf.sharding, leaf.shape, entry.stacked, leaf.dtype)
            lowered = function.lower(leaf, number, number)
        memory = lowered.compile().memory_analysis()
        most = max(most, memory.output_size_in_bytes + memory.temp_size_in_bytes)
    return most


def measure() -> dict[str, float]:
    """One run; the figures of this process."""
    set_cpu_threads()
    if COUNT > 1:
        distributed.initialize(distributed.find_cluster_config())
    mesh = make_mesh(1, -1, ARGUMENTS.tensor)
    abstract = abstract_transformer(mesh)
    shapes = flat_leaves(abstract)
    entries, _ = plan(shapes, FLUX, CONFIG)
    layer = max(shapes[one.path].size * 4 // len(one.keys) for one in entries)
    before = array_bytes()
    state = first_state(abstract, mesh)
    jax.block_until_ready(state)
    held = array_bytes() - before
    folder = ARGUMENTS.folder / f"{COUNT}"
    figures = {
        "state": held,
        "layer": layer,
        "leaf": max(leaf.size * 4 for leaf in shapes.values()),
        "weights": sum(leaf.size * 4 for leaf in shapes.values()),
        "planned": planned(shapes),
    }

    watch, start = Watch(), time.monotonic()
    with Checkpointer(folder / "checkpoints", About({})) as checkpointer:
        checkpointer.save(state, NoData())
    figures |= {"checkpoint_seconds": time.monotonic() - start}
    watch.finish()
    figures |= {"checkpoint_arrays": watch.arrays - before - held, "checkpoint_host": watch.host}
    if is_writer():
        shutil.rmtree(folder / "checkpoints")

    weights_of = {"policy": state.params, "ema": state.ema}
    del state
    rest = array_bytes() - before
    watch, start = Watch(), time.monotonic()
    for name, trained in weights_of.items():
        save_params(
            folder / name, trained, FLUX, config=CONFIG, max_shard_bytes=ARGUMENTS.file_mib << 20
        )
    figures |= {"seconds": time.monotonic() - start}
    watch.finish()
    figures |= {"rest": rest, "arrays": watch.arrays - before, "host": watch.host}
    distributed.barrier("the end of the benchmark")
    return figures


class NoData:
    """In place of the iterator of a checkpoint."""

    def get_state(self) -> dict[str, int]:
        """A state."""
        return {"next_index": 0}


def digest(folder: Path) -> str:
    """Of the contents of all files in a folder."""
    found = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        found.update(path.relative_to(folder).as_posix().encode())
        with path.open("rb") as file:
            while block := file.read(1 << 24):
                found.update(block)
    return found.hexdigest()


def run(count: int) -> list[dict[str, float]]:
    """The figures of all processes of one run."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    command = [sys.executable, __file__, *sys.argv[1:], f"--processes={count}"]
    cluster = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(count)}
    processes = [
        subprocess.Popen(
            [*command, f"--index={index}"],
            # a fixed threshold: memory that is let go of is given back, and counts when used again
            env=os.environ
            | cluster
            | {"JAX_PROCESS_ID": str(index), "MALLOC_MMAP_THRESHOLD_": str(1 << 20)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in range(count)
    ]
    said = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        sys.exit(f"a process of {count} failed")
    return [json.loads(text.strip().splitlines()[-1]) for text in said]


def report(count: int, figures: list[dict[str, float]]) -> bool:
    """Prints one run; whether the claims hold."""
    first, most = figures[0], ARGUMENTS.file_mib << 20
    print(f"{count} process{'es' if count > 1 else ''}, {ARGUMENTS.devices} devices")
    rows = [
        ("a device: the training state", *(one["state"] for one in figures)),
        ("  without moments", *(one["rest"] for one in figures)),
        ("  highest while saving", *(one["arrays"] for one in figures)),
        ("  without its arguments, as compiled", *(one["planned"] for one in figures)),
        ("  one layer of the largest leaf", first["layer"]),
        ("  all of the largest leaf", first["leaf"]),
        ("the host, beyond these", *(one["host"] for one in figures)),
        ("  a file of the model", most),
        ("a checkpoint: device, beyond the state", *(one["checkpoint_arrays"] for one in figures)),
        ("  the host, beyond the state", *(one["checkpoint_host"] for one in figures)),
    ]
    for name, *values in rows:
        print(f"{name:42}" + "".join(f"{value / 2**20:10.1f}" for value in values) + " MiB")
    rate = 2 * first["weights"] / first["seconds"] / 2**20
    print(f"{'saved':42}{first['seconds']:10.1f} s, {rate:.0f} MiB/s")
    print(f"{'the checkpoint':42}{first['checkpoint_seconds']:10.1f} s")
    claims = {
        "devices: at most what is left and one layer": all(
            one["arrays"] <= one["rest"] + one["layer"] and one["planned"] <= one["layer"]
            for one in figures
        ),
        "hosts: at most one file and a constant": all(
            one["host"] <= most + CONSTANT for one in figures
        ),
        f"hosts: at most two layers and {CONSTANT >> 20} MiB": all(
            one["host"] <= 2 * one["layer"] + CONSTANT for one in figures
        ),
    }
    for claim, holds in claims.items():
        print(f"{claim:43}{'yes' if holds else 'NO':>10}")
    return all(claims.values())


def main() -> None:
    """Runs all and compares; exits with 1 when a claim does not hold."""
    if ARGUMENTS.index is not None:
        print(json.dumps(measure()))
        return
    shutil.rmtree(ARGUMENTS.folder, ignore_errors=True)
    holds, digests = True, set()
    for count in ARGUMENTS.processes:
        holds = report(count, run(count)) and holds
        for name in ("policy", "ema"):
            digests.add(digest(ARGUMENTS.folder / f"{count}" / name))
        shutil.rmtree(ARGUMENTS.folder / f"{count}")
    # the average of a first state is the policy itself
    print(f"the files of all runs are the same: {'yes' if len(digests) == 1 else 'NO'}")
    sys.exit(0 if holds and len(digests) == 1 else 1)


if __name__ == "__main__":
    main()
