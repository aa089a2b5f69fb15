"""Every way to attention gives the numbers of the plain one, forward and backward."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from onereward_jax.models.attention import attention
from onereward_jax.models.attention.blockwise import blockwise_attention
from onereward_jax.models.attention.splash import splash_attention
from onereward_jax.parallel import make_mesh, mesh_jit

TOLERANCE = 2e-5


def arrays(length: int, heads: int, kv_heads: int, width: int, batch: int = 2):
    rng = np.random.default_rng(0)
    shapes = ((batch, length, count, width) for count in (heads, kv_heads, kv_heads, heads))
    *qkv, cotangent = (rng.normal(size=shape).astype(np.float32) for shape in shapes)
    return tuple(qkv), cotangent


def value_and_gradients(function, qkv, cotangent):
    mixed, backward = jax.vjp(function, *qkv)
    return (mixed, *backward(cotangent))


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("rows", [1, 21])
@pytest.mark.parametrize("is_causal", [False, True])
def test_blocks_of_queries_give_the_same_as_all_at_once(rows, is_causal):
    qkv, cotangent = arrays(21, heads=4, kv_heads=2, width=8)
    mask = np.random.default_rng(1).random((2, 1, rows, 21)) < 0.7
    mask[..., 0] = True
    options = {"mask": jnp.asarray(mask), "is_causal": is_causal}
    plain = value_and_gradients(functools.partial(attention, **options), qkv, cotangent)
    # 21 queries in blocks of 8: the last block hangs over
    blocks = functools.partial(blockwise_attention, block=8, **options)
    assert_same(value_and_gradients(blocks, qkv, cotangent), plain)


def test_long_sequences_never_form_their_logits():
    abstract = jax.ShapeDtypeStruct((1, 16384, 1, 8), jnp.float32)
    backward = jax.grad(lambda q, k, v: jnp.sum(attention(q, k, v)))
    lowered = jax.jit(backward).lower(abstract, abstract, abstract)
    assert "16384x16384" not in lowered.as_text()


@pytest.mark.parametrize("is_causal", [False, True])
def test_the_kernel_of_tpus_gives_the_same_on_a_mesh(is_causal):
    """130 tokens are padded to 256; grouped queries; samples and heads on different devices."""
    qkv, cotangent = arrays(130, heads=4, kv_heads=2, width=128)
    plain = functools.partial(attention, is_causal=is_causal)
    kernel = functools.partial(splash_attention, is_causal=is_causal, interpret=True)
    mesh = make_mesh(1, 2, 2, devices=jax.devices()[:4])
    found = mesh_jit(functools.partial(value_and_gradients, kernel), mesh)(qkv, cotangent)
    assert_same(found, value_and_gradients(plain, qkv, cotangent))
