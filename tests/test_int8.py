"""A judge in int8: what it costs in accuracy, who gets gradients, where it lies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_models
from jax.sharding import PartitionSpec

from onereward_jax.convert.hub import PACKAGE
from onereward_jax.models.flux.layers import TwoPartDense
from onereward_jax.models.int8 import Quantized, abstract_quantized, quantize
from onereward_jax.models.weights import variables
from onereward_jax.parallel import make_mesh
from onereward_jax.reward import QueryBatch
from onereward_jax.reward.judge_loader import (
    abstract_reward_params,
    load_reward_params,
    read_reward_model,
)

JUDGE = PACKAGE / "mini" / "models" / "judge"


def whole(weights: Quantized) -> dict:
    """The floats that the integers stand for."""

    def restored(path, leaf):
        scale = weights.scales
        for key in path[:-1]:
            scale = scale.get(key.key, {})
        if "scale" not in scale or path[-1].key != "kernel":
            return leaf
        return leaf.astype(jnp.float32) * scale["scale"][..., None, :]

    return jax.tree_util.tree_map_with_path(restored, weights.params)


def test_a_kernel_is_met_within_half_a_step_of_its_channel():
    kernel = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    kernel[1, :, 2] = 0.0
    params = {"layer": {"kernel": kernel, "bias": np.ones(3)}, "lm_head": {"kernel": kernel[0]}}
    found = quantize(params)
    assert found.params["layer"]["kernel"].dtype == jnp.int8
    assert found.params["lm_head"]["kernel"] is params["lm_head"]["kernel"]
    assert found.params["layer"]["bias"] is params["layer"]["bias"]
    step = np.abs(kernel).max(axis=1, keepdims=True) / 127
    error = np.abs(whole(found)["layer"]["kernel"] - kernel)
    assert (error <= 0.5001 * step + 1e-9).all() and error.max() > 0
    assert not np.any(whole(found)["layer"]["kernel"][1, :, 2])


@pytest.fixture(scope="module")
def asked():
    """Both pictures of some pairs and the questions about them."""
    batch = jax.device_put(tiny_models.rl_batch(4))
    names = ("query_prefix", "query_suffix", "query_suffix_mask")
    return batch["image"], batch["target"], QueryBatch(*(batch[name] for name in names))


def test_answers_and_gradients_are_those_of_the_rounded_weights(asked):
    """A scale left out of any layer would change both; integers themselves get no gradient."""
    scorer, params = tiny_models.models().scorer, tiny_models.weights()[3]
    weights = quantize(params)

    @jax.jit
    def answer(weights, image):
        def total(image):
            yes, no = scorer.score(weights, image, *asked[1:])
            return jnp.sum(yes), (yes, no)

        return jax.grad(total, has_aux=True)(image)

    gradient, found = answer(weights, asked[0])
    wanted_gradient, wanted = answer(whole(weights), asked[0])
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(gradient, wanted_gradient, rtol=1e-3, atol=1e-6)
    assert np.abs(gradient).max() > 1e-4
    exact = answer(params, asked[0])[1]
    assert 0 < np.abs(np.exp(found[0]) - np.exp(exact[0])).max() < 0.05


def test_it_lies_on_the_mesh_as_the_judge_does_in_a_quarter_of_the_bytes():
    mesh = make_mesh(2, 2, 2)
    scorer = read_reward_model(JUDGE, (64, 64)).scorer
    weights = load_reward_params(JUDGE, scorer, mesh, int8=True)
    plan = abstract_reward_params(scorer, mesh, int8=True)
    for found, wanted in zip(jax.tree.leaves(weights), jax.tree.leaves(plan), strict=True):
        assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
        assert found.sharding == wanted.sharding
    layers = weights.scales["model"]["layers"]
    assert layers["mlp"]["gate_proj"]["scale"].sharding.spec == PartitionSpec(None, "tensor")
    assert layers["mlp"]["down_proj"]["scale"].sharding.spec == PartitionSpec(
        None, ("fsdp", "context")
    )

    def on_one_device(tree):
        shards = (leaf.addressable_shards[0].data for leaf in jax.tree.leaves(tree))
        return sum(shard.nbytes for shard in shards)

    floats = load_reward_params(JUDGE, scorer, mesh)
    kernels = [leaf for leaf in jax.tree.leaves(weights.params) if leaf.dtype == jnp.int8]
    saved = 3 * sum(leaf.addressable_shards[0].data.nbytes for leaf in kernels)
    scales = on_one_device(weights.scales)
    assert on_one_device(weights) == on_one_device(floats) - saved + scales
    assert saved > 0.5 * on_one_device(floats)
    assert abstract_quantized(abstract_reward_params(scorer, mesh)) == plan


def test_int8_products_are_exact_and_close_to_the_layer():
    """One layer over two inputs, each with scales per token; bound: half a step of each factor."""
    rng = np.random.default_rng(1)
    first, second = (rng.normal(size=(2, 3, width)).astype(np.float32) for width in (5, 8))
    first[0, 1] *= 100.0
    second[1, 2] = 0.0
    given = jnp.asarray(first), jnp.asarray(second)
    layer = TwoPartDense(4, jnp.float32, jnp.float32)
    kernel = rng.normal(size=(13, 4)).astype(np.float32)
    params = {"kernel": kernel, "bias": rng.normal(size=4).astype(np.float32)}
    weights = quantize(params, "")
    found = layer.apply(variables(weights), *given)
    integers, scale = np.asarray(weights.params["kernel"], int), weights.scales["scale"]
    wanted, bound = params["bias"], 0.0
    for x, rows in ((first, slice(None, 5)), (second, slice(5, None))):
        step = np.abs(x).max(axis=-1, keepdims=True) / 127
        rounded = np.rint(x / np.where(step == 0, 1, step)).astype(int)
        wanted = wanted + (rounded @ integers[rows]) * step * scale
        part = np.abs(x).sum(-1, keepdims=True) * scale + step * np.abs(kernel[rows]).sum(0)
        bound = bound + 0.5 * part + 0.25 * step * scale * len(kernel[rows])
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    error = np.abs(found - layer.apply({"params": params}, *given))
    assert (error <= bound + 1e-5).all() and error.max() > 1e-3
