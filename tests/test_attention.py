"""Every way to attention gives the numbers of the plain one, forward and backward."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from onereward_jax.models.attention import attention
from onereward_jax.models.attention.blockwise import blockwise_attention
from onereward_jax.models.attention.cudnn import cudnn_attention
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


@pytest.mark.parametrize(("queries", "keys"), [(4, 8), (5, 8), (4, 9), (5, 9)])
@pytest.mark.parametrize("given", ["mask", "mask of a row", "bias", "both", "none"])
def test_what_is_added_for_cudnn_changes_nothing(queries, keys, given):
    """Its gradients want even numbers where there is a mask or a bias."""
    rng = np.random.default_rng(0)
    (q, k, v), cotangent = arrays(keys, heads=4, kv_heads=2, width=8)
    q, cotangent = q[:, :queries], cotangent[:, :queries]
    options = {}
    if "mask" in given or given == "both":
        rows = 1 if given == "mask of a row" else queries
        mask = rng.random((2, 1, rows, keys)) < 0.7
        mask[..., 0] = True
        options["mask"] = jnp.asarray(mask)
    if given in ("bias", "both"):
        options["bias"] = jnp.asarray(rng.normal(size=(1, 4, queries, keys)).astype(np.float32))
    plain = functools.partial(attention, **options)
    padded = functools.partial(cudnn_attention, implementation="xla", **options)
    found = value_and_gradients(padded, (q, k, v), cotangent)
    assert_same(found, value_and_gradients(plain, (q, k, v), cotangent))


def test_on_gpus_cudnn_is_asked_for_even_numbers_where_there_is_a_mask(monkeypatch, cudnn_to_trace):
    monkeypatch.setattr("onereward_jax.models.attention.dispatch._platform", lambda: "cuda")
    queries = jax.ShapeDtypeStruct((1, 137, 4, 64), jnp.bfloat16)
    keys = jax.ShapeDtypeStruct((1, 2913, 2, 64), jnp.bfloat16)
    mask = jax.ShapeDtypeStruct((1, 1, 137, 2913), jnp.bool_)

    def loss(q, k, v, mask):
        return jnp.sum(attention(q, k, v, mask=mask).astype(jnp.float32))

    text = str(jax.make_jaxpr(jax.grad(loss))(queries, keys, keys, mask))
    assert "dot_product_attention_bwd" in text
    assert "bf16[1,138,4,64]" in text and "bf16[1,2914,2,64]" in text
