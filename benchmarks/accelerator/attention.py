"""The accelerator's attention against blockwise attention: numbers and seconds.

    python benchmarks/accelerator/attention.py --out=results

The accelerator's kernel in bfloat16 at the published models' shapes, forward and gradients, against
blockwise attention in float32; blockwise in bfloat16 is the yardstick.
An error is |found - expected| / |expected| over a whole array (2-norms).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from real_sizes import median_seconds, share_of_peak, versions
from results import Results, error

from onereward_jax.models.attention import attention
from onereward_jax.models.attention.blockwise import blockwise_attention
from onereward_jax.parallel import make_mesh, mesh_jit
from onereward_jax.training.count_jaxpr_flops import Assumptions, count_flops

SHAPES = {
    "editor": dict(batch=2, queries=4608, heads=24, kv_heads=24, width=128),
    "judge, vision": dict(batch=2, queries=5476, heads=16, kv_heads=16, width=80),
    "judge, prefix": dict(batch=1, queries=2776, heads=28, kv_heads=4, width=128, is_causal=True),
    "judge, suffixes": dict(
        batch=1, queries=137, keys=2913, heads=28, kv_heads=4, width=128, masked=True
    ),
}
"""Of the published models at 1024x1024 pixels."""

TINY_SHAPES = {
    "editor": dict(batch=1, queries=140, heads=2, kv_heads=2, width=16),
    "judge, suffixes": dict(
        batch=1, queries=7, keys=140, heads=4, kv_heads=2, width=16, masked=True
    ),
}


def main() -> None:
    """Writes the lines of the part."""
    results = Results("attention", __doc__)
    results.add("start", **versions())
    for name, shape in (TINY_SHAPES if results.tiny else SHAPES).items():
        results.add("attention", case=name, **shape, **attention_errors(**shape))
    results.add("complete")


def attention_errors(
    batch: int,
    queries: int,
    heads: int,
    kv_heads: int,
    width: int,
    keys: int | None = None,
    is_causal: bool = False,
    masked: bool = False,
) -> dict[str, Any]:
    """Errors and seconds of the accelerator's attention, forward and with gradients."""
    rng, keys = np.random.default_rng(0), keys or queries
    shapes = [(batch, queries, heads, width), *[(batch, keys, kv_heads, width)] * 2]
    shapes.append(shapes[0])
    *qkv, cotangent = (jnp.asarray(rng.normal(size=shape), jnp.bfloat16) for shape in shapes)
    options: dict[str, Any] = {"is_causal": is_causal}
    if masked:
        seen = rng.random((batch, 1, queries, keys)) < 0.7
        options["mask"] = jnp.asarray(seen | (np.arange(keys) == 0))
    mesh = make_mesh(1, 1, 1, devices=jax.devices()[:1])

    def forward(function: Callable[..., Any], *arrays: Any) -> Any:
        return function(*arrays, **options)

    def both(function: Callable[..., Any], *arrays: Any) -> Any:
        *inputs, back = arrays
        mixed, backward = jax.vjp(functools.partial(function, **options), *inputs)
        return mixed, *backward(back.astype(mixed.dtype))

    def run(function: Callable[..., Any], arrays: Any) -> Any:
        return mesh_jit(functools.partial(both, function), mesh)(*arrays)

    wide = [array.astype(jnp.float32) for array in (*qkv, cotangent)]
    with jax.default_matmul_precision("highest"):
        expected = jax.device_get(run(blockwise_attention, wide))
    found: dict[str, Any] = {}
    for name, function in (("attention", attention), ("blockwise", blockwise_attention)):
        made = jax.device_get(run(function, (*qkv, cotangent)))
        parts = ("output", "dq", "dk", "dv")
        found[name] = {part: error(*two) for part, *two in zip(parts, made, expected)}
        for part, callee, arrays in (
            ("forward", forward, qkv),
            ("forward and gradient", both, (*qkv, cotangent)),
        ):
            jitted = mesh_jit(functools.partial(callee, function), mesh)
            flops = count_flops(jitted.trace(*arrays).jaxpr.jaxpr, Assumptions())
            seconds = median_seconds(lambda: jitted(*arrays), 5)  # noqa: B023
            found[name][f"{part}, seconds"] = seconds
            found[name][f"{part}, share of peak"] = share_of_peak(flops, seconds, mesh)
    return found


if __name__ == "__main__":
    main()
