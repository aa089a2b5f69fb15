"""FLUX's tokens on several devices: every attention gives the same, and no cut moves a token."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from onereward_jax.models.attention import attention
from onereward_jax.models.attention.blockwise import blockwise_attention
from onereward_jax.models.attention.cudnn import cudnn_attention
from onereward_jax.models.attention.splash import splash_attention
from onereward_jax.models.flux import token_order
from onereward_jax.models.flux.token_order import TokenOrder
from onereward_jax.parallel import make_mesh, mesh_jit

TEXT, IMAGE, WIDTH = 3, 15, 32
KERNELS = {
    "xla": attention,
    "blocks": functools.partial(blockwise_attention, block=4),
    "cudnn": functools.partial(cudnn_attention, implementation="xla"),
    "splash": functools.partial(splash_attention, interpret=True),
}


def streams(seed=0):
    """Text and image, [2, 3 or 15 tokens, 4 heads, 32 channels], three times and a cotangent."""
    rng = np.random.default_rng(seed)
    shapes = [(2, length, 4, WIDTH) for length in (TEXT, IMAGE)] * 4
    drawn = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    return list(zip(drawn[::2], drawn[1::2]))


def mixed(*pairs):
    """Attention of both streams together, [2, 18, 4 * 32], in the order of the mesh and back."""
    order = TokenOrder.on_mesh(TEXT, IMAGE)
    joined = order.attend(*(order.join(*map(order.pad, pair)) for pair in pairs))
    text, image = order.split(joined.reshape(*joined.shape[:2], -1))
    return jnp.concatenate([text[:, :TEXT], order.gather(image)], axis=1)


def value_and_gradients(function, pairs):
    value, backward = jax.vjp(function, *pairs[:3])
    cotangent = jnp.concatenate(pairs[3], axis=1)
    return value, backward(cotangent.reshape(value.shape))


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_attention_gives_the_same_where_devices_share_the_tokens(kernel, monkeypatch):
    """Neither length divides: each device has two of three text tokens, or a padded one."""
    plain = value_and_gradients(mixed, streams())
    monkeypatch.setattr(token_order, "attention", KERNELS[kernel])
    spread = mesh_jit(functools.partial(value_and_gradients, mixed), make_mesh(1, 2, 2, 2))
    assert "all_gather" in str(spread.trace(streams()).jaxpr)
    found = spread(streams())
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-5), found, plain)


def test_streams_are_joined_and_cut_where_they_lie():
    mesh = make_mesh(1, 2, 1, 4)
    sharding = NamedSharding(mesh, PartitionSpec("fsdp", "context"))
    text, image = (jnp.arange(2.0 * n * 8).reshape(2, n, 8) for n in (8, 32))
    placed = jax.device_put((text, image), sharding)

    def there_and_back(text, image):
        order = TokenOrder.on_mesh(8, 32)
        joined = token_order.constrain(order.join(text, image), token_order.TOKENS)
        return order.split(jnp.tanh(joined))

    function = mesh_jit(there_and_back, mesh)
    moved = re.compile("all-gather|all-to-all|all-reduce|collective-permute")
    assert not moved.search(function.lower(*placed).compile().as_text())
    jax.tree.map(
        np.testing.assert_array_equal, function(*placed), (jnp.tanh(text), jnp.tanh(image))
    )


def test_on_other_meshes_tokens_stay_as_they_are():
    """Without the axis there is nothing but a concatenation, attention and a cut."""
    traced = mesh_jit(mixed, make_mesh(2, 2, 2)).trace(*streams()[:3])
    names = {equation.primitive.name for equation in traced.jaxpr.eqns}
    assert names & {"concatenate", "slice"} and not names & {"shard_map", "pad", "all_gather"}
