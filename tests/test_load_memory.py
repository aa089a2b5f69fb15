"""Loading holds one device's part of one leaf and a block of a file, beside what it has made.

JAX itself lets go of what it has copied at its next call only: hence one part more.

`benchmarks/load_memory.py` measures the same on gigabytes, by what the kernel counts.
"""

import tracemalloc
import weakref
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from safetensors.numpy import save_file

from onereward_jax.convert import FLUX, load, load_params
from onereward_jax.convert.save import write_json
from onereward_jax.parallel import make_mesh

LAYERS, LEAVES, ROWS, COLUMNS = 8, "qkvox", 256, 512
BLOCK = 64 << 10
SLACK = 3 * BLOCK
"""For the interpreter's own objects and a block of the file that is being cast."""


def live_buffers() -> set[int]:
    """Addresses of the memory of all arrays that exist."""
    return {
        shard.data.unsafe_buffer_pointer()
        for array in jax.live_arrays()
        for shard in array.addressable_shards
    }


def write_checkpoint(folder: Path) -> int:
    """Stacked projections in bfloat16, one file per leaf; returns the bytes of all files."""
    rng = np.random.default_rng(0)
    weight_map = {}
    for leaf in LEAVES:
        name = f"{FLUX.basename}-{leaf}.safetensors"
        tensors = {
            f"transformer_blocks.{layer}.proj_{leaf}.weight": rng.normal(
                size=(COLUMNS, ROWS)
            ).astype(jnp.bfloat16)
            for layer in range(LAYERS)
        }
        save_file(tensors, folder / name)
        weight_map.update(dict.fromkeys(tensors, name))
    write_json(folder / f"{FLUX.basename}.safetensors.index.json", {"weight_map": weight_map})
    write_json(folder / "config.json", {"_class_name": FLUX.architecture})
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def test_parts_are_let_go_of_and_no_file_stays_mapped(tmp_path, monkeypatch):
    files = write_checkpoint(tmp_path)
    sharding = NamedSharding(make_mesh(1, 4, 2), PartitionSpec(None, "fsdp", "tensor"))
    leaf = jax.ShapeDtypeStruct((LAYERS, ROWS, COLUMNS), jnp.float32, sharding=sharding)
    abstract = {"transformer_blocks": {f"proj_{i}": {"kernel": leaf} for i in LEAVES}}
    stacked = 4 * leaf.size
    assert files > 2 * stacked
    monkeypatch.setattr(load, "BLOCK_BYTES", BLOCK)
    parts: list[tuple[weakref.ref, int]] = []
    excess = []
    read_leaf = load.read_leaf

    def watched(*arguments):
        kept = {address for part, address in parts if part() is not None}
        assert len(kept - live_buffers()) <= 1, "parts that are in no array are still held"
        assert str(tmp_path) not in Path("/proc/self/maps").read_text()
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        part = read_leaf(*arguments)
        excess.append(tracemalloc.get_traced_memory()[1] - before - part.nbytes)
        assert part.nbytes == stacked // 8
        parts.append((weakref.ref(part), part.ctypes.data))
        return part

    monkeypatch.setattr(load, "read_leaf", watched)
    tracemalloc.start()
    try:
        params = load_params(tmp_path, abstract, FLUX)
    finally:
        tracemalloc.stop()
    assert len(excess) == 8 * len(LEAVES)
    assert max(excess) < SLACK
    assert all(array.sharding == sharding for array in jax.tree.leaves(params))
