"""Host memory overhead while a checkpoint is loaded onto a mesh.

    python benchmarks/load_memory.py --folder /tmp/flux [--devices 8] [--dtype bfloat16]

Writes a transformer with FLUX's widths and fewer layers (4.4 GB of random bfloat16 in shards with
an index) into the folder, unless it exists, and loads it as every stage does. The claim: the
overhead of loading is at most the largest stacked tensor plus a constant.

On CPU the loaded arrays are in host memory too, so they are subtracted: a thread repeatedly lists
the live arrays, then reads the resident memory of the process (RSS) from /proc/self/status. The
rest, minus the memory before loading, is the overhead. It is printed in total and split into
anonymous memory and file pages, which the kernel may drop at any time. A partly filled array counts
as overhead until it exists.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--folder", type=Path, required=True, help="where the checkpoint is, or goes")
parser.add_argument("--devices", type=int, default=8, help="virtual CPU devices")
parser.add_argument("--tensor", type=int, default=2, help="of them, size of the mesh axis tensor")
parser.add_argument("--dtype", default="bfloat16", help="of the loaded arrays")
parser.add_argument("--double", type=int, default=3, help="double-stream blocks")
parser.add_argument("--single", type=int, default=8, help="single-stream blocks")
ARGUMENTS = parser.parse_args()
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={ARGUMENTS.devices}"
)

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file, save_file

from onereward_jax.convert import FLUX, load_params
from onereward_jax.convert.save import write_json
from onereward_jax.convert.tensor_names import flat_leaves, plan
from onereward_jax.models.flux import FluxConfig, FluxTransformer
from onereward_jax.parallel import abstract_arrays, make_mesh
from onereward_jax.parallel.cpu_threads import set_cpu_threads

CONFIG = dict(
    _class_name="FluxTransformer2DModel",
    in_channels=384,
    out_channels=64,
    guidance_embeds=True,
    num_layers=ARGUMENTS.double,
    num_single_layers=ARGUMENTS.single,
)
SHARD_BYTES = 1 << 30
CONSTANT = 256 << 20
"""Allowed overhead besides the largest stacked tensor: blocks of a file, JSON, the heap."""


def abstract_transformer(mesh: Any) -> Any:
    """Shapes and shardings of the transformer's parameters."""
    config = FluxConfig.from_dict(CONFIG)
    model = FluxTransformer(config, param_dtype=jnp.dtype(ARGUMENTS.dtype))
    ids = jnp.zeros((1, 3))
    image = jnp.zeros((1, 1, config.in_channels))
    text = jnp.zeros((1, 1, config.joint_attention_dim))
    pooled, time_step = jnp.zeros((1, config.pooled_projection_dim)), jnp.zeros(1)
    boxed = jax.eval_shape(
        lambda: model.init(jax.random.key(0), image, text, pooled, time_step, ids, ids, time_step)
    )
    return abstract_arrays(boxed["params"], mesh)


def write_checkpoint(folder: Path, abstract: Any) -> None:
    """Random weights, one shard in memory at a time."""
    entries, _ = plan(flat_leaves(abstract), FLUX, CONFIG)
    rng = np.random.default_rng(0)
    draft = folder.with_name(folder.name + ".draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    weight_map: dict[str, str] = {}
    pending: dict[str, np.ndarray] = {}

    def flush() -> None:
        name = f"{FLUX.basename}-{len(set(weight_map.values())) + 1:05d}.safetensors"
        save_file(pending, draft / name)
        weight_map.update(dict.fromkeys(pending, name))
        pending.clear()

    for entry in entries:
        for key in entry.keys:
            # random bits of a normal exponent: quicker than normal numbers, and no NaN
            bits = rng.integers(0x3C00, 0x3D00, entry.tensor_shape, np.uint16)
            pending[key] = bits.view(jnp.bfloat16)
            if sum(tensor.nbytes for tensor in pending.values()) > SHARD_BYTES:
                flush()
    flush()
    write_json(draft / f"{FLUX.basename}.safetensors.index.json", {"weight_map": weight_map})
    write_json(draft / "config.json", CONFIG)
    draft.rename(folder)


class Resident(NamedTuple):
    """Resident memory of this process in bytes."""

    total: int
    anonymous: int
    files: int


def resident() -> Resident:
    """What /proc/self/status says now."""
    text = Path("/proc/self/status").read_text()
    names = ("VmRSS", "RssAnon", "RssFile")
    return Resident(*(1024 * int(re.search(rf"{name}:\s+(\d+) kB", text)[1]) for name in names))


def array_bytes() -> int:
    """Bytes of all arrays that exist; buffers that several arrays share count once."""
    buffers = {}
    for array in jax.live_arrays():
        for shard in array.addressable_shards:
            buffers[shard.data.unsafe_buffer_pointer()] = shard.data.nbytes
    return sum(buffers.values())


class Watch(threading.Thread):
    """Measures from its start to `finish`.

    Attributes:
      before: resident memory and bytes of arrays at the start.
      peak: highest resident memory, by kind and without subtraction.
      own: the same beyond `before` and the arrays made since.
      samples: how often it looked.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.before, self.arrays = resident(), array_bytes()
        self.peak = self.before
        self.own = Resident(0, 0, 0)
        self.samples = 0
        self._stop_asked = threading.Event()

    def run(self) -> None:
        """Looks every two milliseconds."""
        while not self._stop_asked.wait(0.002):
            self.look()

    def look(self) -> None:
        """One sample. Arrays first: one made meanwhile then counts as loading's own."""
        made, now = array_bytes() - self.arrays, resident()
        self.peak = Resident(*map(max, self.peak, now))
        grown = Resident(*(value - start for value, start in zip(now, self.before)))
        own = Resident(grown.total - made, grown.anonymous - made, grown.files)
        self.own = Resident(*map(max, self.own, own))
        self.samples += 1

    def finish(self) -> None:
        """Stops, with a last look."""
        self._stop_asked.set()
        self.join()
        self.look()


def check_values(folder: Path, params: Any) -> None:
    """Compares a stacked leaf with the safetensors library's reading of the files."""
    kernel = params["single_transformer_blocks"]["proj_out"]["kernel"]
    for path in sorted(folder.glob("*.safetensors")):
        for key, tensor in load_file(path).items():
            if found := re.fullmatch(r"single_transformer_blocks\.(\d+)\.proj_out\.weight", key):
                wanted = np.asarray(tensor.T).astype(kernel.dtype)
                np.testing.assert_array_equal(np.asarray(kernel[int(found[1])]), wanted)


def main() -> None:
    """Prints the figures; exits with 1 when the claim does not hold."""
    set_cpu_threads()
    mesh = make_mesh(1, -1, ARGUMENTS.tensor)
    abstract = abstract_transformer(mesh)
    if not ARGUMENTS.folder.is_dir():
        write_checkpoint(ARGUMENTS.folder, abstract)
    leaves = flat_leaves(abstract).values()
    stacked = max(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    part = max(
        int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize for leaf in leaves
    )
    files = sum(path.stat().st_size for path in ARGUMENTS.folder.glob("*.safetensors"))
    watch = Watch()
    watch.start()
    start = time.monotonic()
    params = load_params(ARGUMENTS.folder, abstract, FLUX)
    seconds = time.monotonic() - start
    watch.finish()
    arrays = array_bytes() - watch.arrays
    for name, value in (
        ("checkpoint", files),
        ("largest stacked tensor", stacked),
        ("largest part of one device", part),
        ("arrays", arrays),
        ("RSS before loading", watch.before.total),
        ("peak RSS", watch.peak.total),
        ("peak of loading's own RSS", watch.own.total),
        ("  its anonymous memory", watch.own.anonymous),
        ("  its pages of files", watch.own.files),
    ):
        print(f"{name:28}{value / 2**20:10.1f} MiB")
    rate = files / seconds / 2**20
    print(f"{mesh.size} devices, {seconds:.1f} s, {rate:.0f} MiB/s, {watch.samples} samples")
    check_values(ARGUMENTS.folder, params)
    holds = watch.own.total <= stacked + CONSTANT
    print(f"below the largest stacked tensor + {CONSTANT >> 20} MiB: {'yes' if holds else 'NO'}")
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    main()
