"""Layers of sharded leaves: what they are, and what a device needs to give them away."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from onereward_jax.parallel import gather_layers, make_mesh
from onereward_jax.parallel.gather_layers import (
    fill,
    layers_on_writer,
    part_function,
    piece_function,
)

LEAF = np.arange(3 * 8 * 12, dtype=np.float32).reshape(3, 8, 12)
SPECS = [P(None, ("fsdp", "data"), "tensor"), P(None, "tensor"), P(None, None, "fsdp"), P()]


def placed(spec):
    return jax.device_put(LEAF, NamedSharding(make_mesh(2, 2, 2), spec))


@pytest.mark.parametrize("spec", SPECS)
def test_layers_come_whole_and_in_order(spec):
    leaf = placed(spec)
    np.testing.assert_array_equal(np.stack(list(layers_on_writer(leaf, True, leaf.dtype))), LEAF)
    (half,) = layers_on_writer(leaf, False, jnp.bfloat16)
    np.testing.assert_array_equal(half, LEAF.astype(jnp.bfloat16))


@pytest.mark.parametrize("spec", SPECS[:-1])
@pytest.mark.parametrize("rows", [1, 2, 100])
def test_pieces_of_the_parts_of_several_processes_are_put_together(spec, rows, monkeypatch):
    """The last piece has rows of the one before, where the number of rows is none of a part's."""
    leaf = placed(spec)
    part = leaf.sharding.shard_shape(leaf.shape)
    row = 4 * LEAF[0].size // part[1]
    monkeypatch.setattr(gather_layers, "PIECE_BYTES", rows * row)
    pick, found = piece_function(leaf.sharding, leaf.shape, True, leaf.dtype)
    assert found == min(rows, part[1])
    for number, layer in enumerate(LEAF):
        whole = np.zeros_like(layer)
        for start in sorted({*range(0, part[1] - found, found), part[1] - found}):
            piece = pick(leaf, np.int32(number), np.int32(start))
            assert piece.is_fully_replicated and piece.nbytes == found * row
            fill(whole, np.asarray(piece), start, leaf.sharding, stacked=True)
        np.testing.assert_array_equal(whole, layer)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_device_needs_its_part_of_a_layer_or_a_piece_of_all(dtype, monkeypatch):
    shape, sharding = (4, 512, 256), NamedSharding(make_mesh(1, 4, 2), P(None, "fsdp", "tensor"))
    monkeypatch.setattr(gather_layers, "PIECE_BYTES", math.prod(shape[1:]) // 2)
    leaf = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding)
    number, width = jax.ShapeDtypeStruct((), jnp.int32), jnp.dtype(dtype).itemsize
    part = part_function(sharding, shape, True, np.dtype(dtype)).lower(leaf, number)
    memory = part.compile().memory_analysis()
    assert memory.output_size_in_bytes == math.prod(shape[1:]) * width // 8
    assert memory.temp_size_in_bytes == 0
    pick, rows = piece_function(sharding, shape, True, np.dtype(dtype))
    memory = pick.lower(leaf, number, number).compile().memory_analysis()
    assert memory.output_size_in_bytes == gather_layers.PIECE_BYTES == rows * 8 * 128 * width
    # CPUs gather bfloat16 as float32
    assert memory.temp_size_in_bytes <= 5 * gather_layers.PIECE_BYTES


def test_split_layers_are_refused():
    with pytest.raises(ValueError, match="the layer axis of a leaf is sharded over"):
        next(layers_on_writer(jax.device_put(np.zeros((8, 8)), NamedSharding(
            make_mesh(1, 8, 1), P("fsdp"))), True, np.float32))  # fmt: skip
