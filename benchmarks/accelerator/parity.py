"""The accelerator's numbers against the CPU's: attention, the models, and a step of `rl`.

    python benchmarks/accelerator/parity.py --out=results

- attention: the accelerator's kernel in bfloat16 at the published models' shapes, forward and
  gradients, against blockwise attention in float32; blockwise in bfloat16 is the yardstick;
- the mini models with their trained weights, and one step of `rl` with them: float32 at full
  precision, float32 as JAX computes it by default (TF32 on GPUs), and bfloat16, each against
  float32 on the CPU. bfloat16 on the CPU is the yardstick.

An error is |found - expected| / |expected| over a whole array (2-norms).
"""

from __future__ import annotations

import concurrent.futures
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from real_sizes import experiment, median_seconds, random_arrays, share_of_peak, versions
from results import Results

from onereward_jax.convert.hub import PACKAGE
from onereward_jax.models.attention import attention
from onereward_jax.models.attention.blockwise import blockwise_attention
from onereward_jax.parallel import make_mesh, mesh_jit
from onereward_jax.policy import PromptEmbeds
from onereward_jax.policy.policy_loader import load_policy
from onereward_jax.reward import QueryBatch
from onereward_jax.reward.judge_loader import load_reward_params, read_reward_model
from onereward_jax.tasks import Task
from onereward_jax.train_compile.programs import make_program
from onereward_jax.training.count_jaxpr_flops import Assumptions, count_flops
from onereward_jax.training.mixed_precision import cast_params

EDITOR, JUDGE = PACKAGE / "mini/models/editor", PACKAGE / "mini/models/judge"
SIDE = 256
"""Pixels: 268 tokens in the editor, enough for cuDNN's attention."""

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

EXPECTED = "cpu, float32"

KINDS = {
    EXPECTED: ("cpu", "float32", "highest"),
    "float32, highest precision": (None, "float32", "highest"),
    "float32, default precision": (None, "float32", "default"),
    "bfloat16": (None, "bfloat16", "default"),
    "cpu, bfloat16": ("cpu", "bfloat16", "default"),
}
"""Name -> (platform, None for the accelerator; dtype; precision of matmuls)."""


def main() -> None:
    """Writes the lines of the part."""
    results = Results("parity", __doc__)
    results.add("start", **versions())
    for name, shape in (TINY_SHAPES if results.tiny else SHAPES).items():
        results.add("attention", case=name, **shape, **attention_errors(**shape))
    asked = read_reward_model(JUDGE, (SIDE, SIDE)).queries.encode([Task.FILL], ["a red apple"])
    start = time.perf_counter()
    kinds = {kind: KINDS[kind] for kind in (EXPECTED, "bfloat16")} if results.tiny else KINDS
    with concurrent.futures.ThreadPoolExecutor(2 * len(kinds)) as threads:
        steps = {kind: threads.submit(step_of, *how) for kind, how in kinds.items()}
        models = {kind: threads.submit(models_of, asked, *how) for kind, how in kinds.items()}
    for name, outputs in (("models", models), ("step", steps)):
        expected = outputs.pop(EXPECTED).result()
        for kind, found in outputs.items():
            errors = {part: error(found.result()[part], value) for part, value in expected.items()}
            results.add(name, kind=kind, errors=errors)
    results.add("took", seconds=time.perf_counter() - start)
    results.add("complete")


def error(found: Any, expected: Any) -> float:
    """|found - expected| / |expected|, in float64."""
    found, expected = (np.asarray(one, np.float64) for one in (found, expected))
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


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


def models_of(
    queries: QueryBatch, platform: str | None, dtype: str, precision: str
) -> dict[str, np.ndarray]:
    """Outputs and gradients of the mini models, computed on the first device of `platform`."""
    mesh = make_mesh(1, 1, 1, devices=jax.devices(platform)[:1])
    kinds = {"dtype": jnp.dtype(dtype), "param_dtype": jnp.dtype(dtype)}
    with jax.default_matmul_precision(precision):
        editor, params = load_policy(EDITOR, mesh, **kinds)
        scorer = read_reward_model(JUDGE, (SIDE, SIDE), **kinds).scorer
        weights = load_reward_params(JUDGE, scorer, mesh)
        rng = np.random.default_rng(0)
        flux = editor.transformer.config

        def normal(*shape: int) -> np.ndarray:
            return rng.standard_normal((1, *shape)).astype(np.float32)

        image, other = (np.tanh(normal(SIDE, SIDE, 3)) for _ in range(2))
        latents = normal(editor.token_count((SIDE, SIDE)), editor.latent_channels)
        embeds = PromptEmbeds(normal(12, flux.joint_attention_dim), normal(64))
        mask = np.ones((1, SIDE, SIDE, 1), np.float32)

        def velocity(transformer: Any, vae: Any, latents: Any) -> Any:
            condition = editor.encode_condition(vae, image, mask)
            return editor.velocity(transformer, latents, condition, embeds, 0.5, 1.0)

        def decode(vae: Any, latents: Any) -> Any:
            return editor.decode(vae, latents, (SIDE, SIDE))

        def yes(weights: Any, image: Any) -> Any:
            return scorer.score(weights, image, other, queries)[0]

        def back(function: Callable[..., Any], argument: int) -> Callable[..., Any]:
            return jax.grad(lambda *given: jnp.sum(function(*given) ** 2), argument)

        programs: Iterator[tuple[str, Callable[..., Any], tuple[Any, ...]]] = iter(
            (
                ("velocity", velocity, (params.transformer, params.vae, latents)),
                ("its gradient", back(velocity, 2), (params.transformer, params.vae, latents)),
                ("decoded", decode, (params.vae, latents)),
                ("its gradient by the latents", back(decode, 1), (params.vae, latents)),
                ("log P(Yes)", yes, (weights, image)),
                ("its gradient by the picture", back(yes, 1), (weights, image)),
            )
        )
        return {
            name: jax.device_get(mesh_jit(function, mesh)(*arguments)).astype(np.float32)
            for name, function, arguments in programs
        }


def step_of(platform: str | None, dtype: str, precision: str) -> dict[str, np.ndarray]:
    """Loss and first moments of Adam (gradients) after one step that trains all weights."""
    config = experiment(tiny=True)
    config.models.dtype, config.rl.lora.rank = dtype, 0
    mesh = make_mesh(1, 1, 1, devices=jax.devices(platform)[:1])
    with jax.default_matmul_precision(precision):
        job = make_program(config, "rl", mesh)
        _, params = load_policy(EDITOR, mesh)
        judge = read_reward_model(JUDGE, (64, 64), suffix_length=64, param_dtype=jnp.dtype(dtype))
        weights = load_reward_params(JUDGE, judge.scorer, mesh)
        state, frozen, batch, key = random_arrays(job.arguments, judge.scorer.layout.packed_length)
        first, trained = params.transformer, jax.tree.map(jnp.copy, params.transformer)
        state = state._replace(params=trained, ema=first)
        reference = jax.tree.map(jnp.copy, cast_params(first, jnp.dtype(dtype)))
        frozen = frozen._replace(reference=reference, vae=params.vae, judge=weights)
        step = job.function.lower(*job.arguments).compile()
        state, metrics = jax.device_get(step(state, frozen, batch, key))
    moments = jax.tree.leaves(optax.tree.get(state.opt_state, "mu"))
    return {
        "loss": np.asarray([metrics["loss"].total]),
        "gradients": np.concatenate([np.ravel(leaf) for leaf in moments]),
    }


if __name__ == "__main__":
    main()
