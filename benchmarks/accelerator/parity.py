"""The accelerator's numbers against the CPU's: the models and a step of `rl`.

    python benchmarks/accelerator/parity.py --out=results

The mini models with their trained weights, and one step of `rl` with them: float32 at full
precision, float32 as JAX computes it by default (TF32 on GPUs), and bfloat16, each against
float32 on the CPU. bfloat16 on the CPU is the yardstick.

An error is |found - expected| / |expected| over a whole array (2-norms).
"""

from __future__ import annotations

import concurrent.futures
import functools
import multiprocessing
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from real_sizes import experiment, random_arrays, versions
from results import Results, error

from onereward_jax.convert.hub import PACKAGE
from onereward_jax.parallel import make_mesh, mesh_jit
from onereward_jax.policy import PromptEmbeds
from onereward_jax.policy.policy_loader import load_policy
from onereward_jax.reward.judge_loader import load_reward_params, read_reward_model
from onereward_jax.tasks import Task
from onereward_jax.train_compile.programs import make_program
from onereward_jax.training.mixed_precision import cast_params

EDITOR, JUDGE = PACKAGE / "mini/models/editor", PACKAGE / "mini/models/judge"
SIDE = 256
"""Pixels: 268 tokens in the editor, enough for cuDNN's attention."""

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
    kinds = {kind: KINDS[kind] for kind in (EXPECTED, "bfloat16")} if results.tiny else KINDS
    made: dict[str, dict[str, dict[str, np.ndarray]]] = {"models": {}, "step": {}}
    # Processes, since most of the time is tracing, which threads do one after another.
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(2 * len(kinds), mp_context=spawn) as workers:
        jobs = {
            workers.submit(function, *how): (part, kind)
            for part, function in (("step", step_of), ("models", models_of))
            for kind, how in kinds.items()
        }
        for job in concurrent.futures.as_completed(jobs):
            part, kind = jobs[job]
            if problem := job.exception():
                results.add("failed", of=part, kind=kind, problem=str(problem))
                continue
            made[part][kind] = job.result()
            results.add("computed", of=part, kind=kind)
            if EXPECTED in made[part]:
                expected = made[part][EXPECTED]
                for found in [one for one in made[part] if one != EXPECTED]:
                    outputs = made[part].pop(found)
                    errors = {name: error(outputs[name], expected[name]) for name in expected}
                    results.add(part, kind=found, errors=errors)
    if any(job.exception() for job in jobs):
        sys.exit(1)
    results.add("complete")


def models_of(platform: str | None, dtype: str, precision: str) -> dict[str, np.ndarray]:
    """Outputs and gradients of the mini models, computed on the first device of `platform`."""
    mesh = make_mesh(1, 1, 1, devices=jax.devices(platform)[:1])
    kinds = {"dtype": jnp.dtype(dtype), "param_dtype": jnp.dtype(dtype)}
    with jax.default_matmul_precision(precision):
        editor, params = load_policy(EDITOR, mesh, **kinds)
        judge = read_reward_model(JUDGE, (SIDE, SIDE), **kinds)
        scorer, queries = judge.scorer, judge.queries.encode([Task.FILL], ["a red apple"])
        weights = load_reward_params(JUDGE, scorer, mesh)
        rng = np.random.default_rng(0)
        flux = editor.transformer.config

        def normal(*shape: int) -> np.ndarray:
            return rng.standard_normal((1, *shape)).astype(np.float32)

        image, other = (np.tanh(normal(SIDE, SIDE, 3)) for _ in range(2))
        latents = normal(editor.token_count((SIDE, SIDE)), editor.latent_channels)
        embeds = PromptEmbeds(normal(12, flux.joint_attention_dim), normal(64))
        mask = np.ones((1, SIDE, SIDE, 1), np.float32)

        def velocity(weights: Any, latents: Any) -> Any:
            transformer, vae = weights
            condition = editor.encode_condition(vae, image, mask)
            return editor.velocity(transformer, latents, condition, embeds, 0.5, 1.0)

        def decode(vae: Any, latents: Any) -> Any:
            return editor.decode(vae, latents, (SIDE, SIDE))

        def yes(weights: Any, image: Any) -> Any:
            return scorer.score(weights, image, other, queries)[0]

        def both(function: Callable[..., Any], weights: Any, varied: Any) -> Any:
            made, back = jax.vjp(functools.partial(function, weights), varied)
            return made, *back(2 * made)

        outputs = {}
        for name, function, arguments in (
            ("velocity", velocity, ((params.transformer, params.vae), latents)),
            ("decoded", decode, (params.vae, latents)),
            ("log P(Yes)", yes, (weights, image)),
        ):
            made, gradient = jax.device_get(
                mesh_jit(functools.partial(both, function), mesh)(*arguments)
            )
            outputs[name], outputs[f"{name}, gradient"] = (
                array.astype(np.float32) for array in (made, gradient)
            )
        return outputs


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
