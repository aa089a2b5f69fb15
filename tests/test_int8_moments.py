"""Adam with moments of one byte: near Adam, right on average, laid out as weights are."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from onereward_jax.parallel import make_mesh
from onereward_jax.training.int8_adam import (
    decode_signed,
    decode_unsigned,
    encode_signed,
    encode_unsigned,
    scale_by_int8_adam,
)
from onereward_jax.training.optimizer import OptimizerConfig, make_optimizer
from onereward_jax.training.train_state import abstract_state, place_state

KEYS = jax.random.split(jax.random.key(0), 4000)
VALUES = jnp.array([[1.0, 0.3, 1e-2, 1e-4, 0.0], [1e-6, 5e-7, 1e-9, 0.0, 0.0], [0.0] * 5])


@pytest.mark.parametrize(
    ("encode", "decode", "values"),
    [
        (encode_signed, decode_signed, VALUES * jnp.array([1, -1, 1, -1, 1])),
        (encode_unsigned, decode_unsigned, VALUES),
    ],
)
def test_what_comes_back_is_near_and_zero_stays_zero(encode, decode, values):
    codes, top = encode(jax.random.key(1), values)
    assert codes.dtype.itemsize == 1 and top.shape == (3, 1)
    back = decode(codes, top)
    large = np.abs(values) >= 1e-2 * top
    np.testing.assert_allclose(back[large], values[large], rtol=0.2)
    assert not np.any(back[values == 0.0])
    assert np.all(np.sign(back) * np.sign(values) >= 0)


def test_codes_are_right_on_average():
    """Nearest codes would lose what a slow average gains in a step."""
    values = jnp.array([1.0, 0.5, 0.123])
    codes = jax.vmap(lambda key: encode_unsigned(key, values)[0])(KEYS).astype(jnp.float32)
    expected = 255 * values**0.25
    np.testing.assert_allclose(codes.mean(0), expected, atol=0.05)
    slower = jnp.array([1.0, 0.5 * 0.999, 0.123])
    moved = jax.vmap(lambda key: encode_unsigned(key, slower)[0])(KEYS).astype(jnp.float32)
    assert moved.mean(0)[1] < codes.mean(0)[1]


def test_the_first_update_is_adams_own():
    gradients = {"kernel": jax.random.normal(jax.random.key(0), (4, 8)), "scalar": jnp.array(-2.0)}
    exact, coded = optax.scale_by_adam(), scale_by_int8_adam(0.9, 0.999, 1e-8)
    expected, _ = exact.update(gradients, exact.init(gradients))
    found, state = coded.update(gradients, coded.init(gradients))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected)
    assert state.mu["kernel"].dtype == jnp.int8 and state.nu["kernel"].dtype == jnp.uint8
    assert state.mu_top["kernel"].shape == (4, 1) and state.mu_top["scalar"].shape == ()


def test_it_learns_what_adam_learns():
    """A regression with features of very different scale, as rows of a network have."""
    rng = np.random.default_rng(0)
    features = jnp.asarray(rng.normal(size=(256, 8)) * np.logspace(-2, 0, 8), jnp.float32)
    truth = jnp.asarray(rng.normal(size=(8, 3)), jnp.float32)

    def distance(moments):
        optimizer = make_optimizer(OptimizerConfig(learning_rate=3e-2, moments=moments))
        params = {"kernel": jnp.zeros((8, 3))}

        def loss(params):
            return jnp.mean((features @ params["kernel"] - features @ truth) ** 2)

        @jax.jit
        def step(carry, _):
            params, state = carry
            updates, state = optimizer.update(jax.grad(loss)(params), state, params)
            return (optax.apply_updates(params, updates), state), loss(params)

        (params, _), losses = jax.lax.scan(step, (params, optimizer.init(params)), length=600)
        return losses[0], losses[-1]

    begin, exact = distance("float32")
    _, coded = distance("int8")
    assert exact < 1e-3 * begin
    assert coded < 2e-3 * begin


def test_a_moment_that_has_come_to_nothing_makes_no_leap():
    """One huge gradient in a row, then a long time of small ones beside it."""
    optimizer = scale_by_int8_adam(0.9, 0.999, 1e-8)
    state = optimizer.init({"w": jnp.zeros(2)})
    update = jax.jit(optimizer.update)
    for number in range(50):
        gradient = jnp.array([1e3 if number == 0 else 1e-3, 1e-6])
        updates, state = update({"w": gradient}, state)
        assert np.all(np.abs(updates["w"]) <= 3.17)


def test_moments_lie_where_their_weights_lie():
    mesh = make_mesh(2, 2, 2)
    optimizer = make_optimizer(OptimizerConfig(moments="int8"))
    sharding = NamedSharding(mesh, PartitionSpec("fsdp", "tensor"))
    params = {"kernel": jax.device_put(jnp.ones((8, 16)), sharding)}
    state = place_state(params, optimizer, mesh, with_ema=False)
    kept = optax.tree.get(state.opt_state, "mu")["kernel"]
    top = optax.tree.get(state.opt_state, "mu_top")["kernel"]
    assert kept.sharding.is_equivalent_to(sharding, 2)
    assert kept.addressable_shards[0].data.nbytes == 8 * 16 // 4
    assert top.shape == (8, 1) and top.addressable_shards[0].data.shape == (4, 1)
    abstract = abstract_state(params, optimizer, mesh, with_ema=False)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), abstract) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), state
    )


def test_updates_do_not_depend_on_the_mesh():
    gradient = {"kernel": jax.random.normal(jax.random.key(3), (8, 16))}
    found = []
    for mesh in (make_mesh(8, 1, 1), make_mesh(2, 2, 2)):
        optimizer = make_optimizer(OptimizerConfig(moments="int8", learning_rate=1.0))
        sharding = NamedSharding(mesh, PartitionSpec("fsdp", "tensor"))
        params = jax.device_put({"kernel": jnp.zeros((8, 16))}, sharding)
        state, update = optimizer.init(params), jax.jit(optimizer.update)
        for _ in range(3):
            updates, state = update(jax.device_put(gradient, sharding), state, params)
        found.append(np.asarray(updates["kernel"]))
    np.testing.assert_allclose(*found, rtol=1e-5, atol=1e-6)
