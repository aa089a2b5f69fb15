"""Order of collectives over CPU processes; test_real_run.py has runs that abort without it."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from onereward_jax.parallel.collective_order import in_order

LAYERS, WIDTH = 3, 16
COLLECTIVES = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"


def network(weights, x, scale):
    """Two scans with what a gather could be moved past: tables, a branch, weights between."""

    def layer(x, w):
        x = jax.lax.fori_loop(0, 2, lambda _, y: jnp.tanh(y @ w), x)
        return x @ w, x.mean()

    table = jnp.sin(weights["table"]) @ weights["table"]
    x, means = jax.lax.scan(jax.checkpoint(layer), x, weights["first"])
    x = jax.lax.cond(means[0] > 0, lambda y: y @ weights["branch"], lambda y: -y, x)
    x = jax.jit(lambda y: jnp.tanh(y @ table) @ weights["between"])(x)
    x, _ = jax.lax.scan(layer, x, weights["second"])
    noise = jax.random.normal(jax.random.key(0), x.shape)
    return scale * (x @ weights["last"] + noise).sum(), means


def gradients(weights, x, scale):
    return jax.value_and_grad(network, has_aux=True)(weights, x, scale)


@pytest.fixture(scope="module")
def arguments():
    mesh = jax.make_mesh((2, 4), ("data", "fsdp"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    keys = iter(jax.random.split(jax.random.key(1), 7))

    def sharded(*shape):
        axes = (None,) * (len(shape) - 2) + ("fsdp", None)
        value = jax.random.normal(next(keys), shape) / WIDTH**0.5
        return jax.device_put(value, NamedSharding(mesh, PartitionSpec(*axes)))

    weights = {name: sharded(WIDTH, WIDTH) for name in ("table", "branch", "between", "last")}
    weights |= {name: sharded(LAYERS, WIDTH, WIDTH) for name in ("first", "second")}
    x = jax.random.normal(next(keys), (8, WIDTH))
    return weights, jax.device_put(x, NamedSharding(mesh, PartitionSpec(("data", "fsdp"))))


def overtaking(compiled):
    """Collectives of the program that stand behind a loop or a branch and do not need it."""
    found, needs, waited = [], {}, []
    entry = compiled.as_text().split("\nENTRY ")[1]
    for line in entry.split("\n"):
        if not (match := re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = .*? ([\w\-]+)\((.*)", line)):
            continue
        name, operation, rest = match.groups()
        operands = [one for one in re.findall(r"%([\w.\-]+)", rest) if one in needs]
        needs[name] = {name}.union(*(needs[one] for one in operands))
        if re.fullmatch(COLLECTIVES, operation):
            found += [(loop, name) for loop in waited if loop not in needs[name]]
        if operation in ("while", "conditional"):
            waited.append(name)
    return found, waited


def test_no_collective_overtakes_a_loop(arguments):
    free, _ = overtaking(jax.jit(gradients, static_argnums=2).lower(*arguments, 2).compile())
    assert free, "XLA orders the collectives by itself: is the module still needed?"
    ordered = jax.jit(in_order(gradients), static_argnums=2).lower(*arguments, 2).compile()
    found, waited = overtaking(ordered)
    assert len(waited) >= 4 and not found


def test_values_stay_what_they_are(arguments):
    expected = jax.jit(gradients, static_argnums=2)(*arguments, 2)
    found = jax.jit(in_order(gradients), static_argnums=2)(*arguments, 2)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected
    )
