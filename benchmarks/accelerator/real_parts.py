"""The parts of a step and whole edits at the published models' sizes, with random weights.

    python benchmarks/accelerator/real_parts.py --out=results

Each part is its own jitted function for one sample: forward passes of the transformer, the VAE,
the judge, their gradients, and edits as in the stages `candidates` and `evaluate`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import FrozenConfigDict
from real_sizes import (
    compile_timed,
    experiment,
    median_seconds,
    memory_in_use,
    one_device,
    random_arrays,
    rl_models,
    share_of_peak,
    versions,
)
from results import Results

from onereward_jax.parallel import mesh_jit
from onereward_jax.policy import Condition, PromptEmbeds
from onereward_jax.policy.generate import make_generate
from onereward_jax.policy.latent_packing import image_ids, token_grid
from onereward_jax.policy.noise_schedule import sigma_table
from onereward_jax.reward import QueryBatch
from onereward_jax.train_compile.device_memory import memory_of
from onereward_jax.train_compile.programs import candidates_jobs, largest_size, make_program
from onereward_jax.training.count_jaxpr_flops import Assumptions, count_flops
from onereward_jax.training.model_flops import full_attention_share
from onereward_jax.training.rl_config import RLModels

REPEATS = 5
SCALE = 4.0
EDITS = ((True, 50), (True, 28), (False, 28))
"""(with true guidance, sampling steps)."""


def main() -> None:
    """Writes the lines of the part."""
    results = Results("real_parts", __doc__)
    config, mesh = experiment(results.tiny), one_device()
    results.add("start", **versions())
    models = rl_models(config)
    layout = models.scorer.layout
    _, frozen, batch, _ = make_program(config, "rl", mesh).arguments
    start = time.perf_counter()
    weights, batch = random_arrays((frozen, batch), layout.packed_length)
    results.add("arrays", seconds=time.perf_counter() - start, **memory_in_use())
    assumptions = Assumptions(true_share=full_attention_share(models.scorer))
    for name, function, arguments in parts(models, weights, batch):
        jitted = mesh_jit(function, mesh)
        traced = jitted.trace(*arguments)
        flops = count_flops(traced.jaxpr.jaxpr, assumptions)
        compiled, compiling = compile_timed(traced.lower())
        seconds = median_seconds(lambda: compiled(*arguments), REPEATS)  # noqa: B023
        results.add(
            name,
            seconds=seconds,
            compile_seconds=compiling,
            flops=flops,
            flops_share=share_of_peak(flops, seconds, mesh),
            planned=dataclasses.asdict(memory_of(compiled)),
        )
        if results.left() < 100:
            break
    judge = weights.judge
    weights = weights._replace(judge=None)
    for leaf in jax.tree.leaves(judge):
        leaf.delete()
    edits(results, models, config, weights, mesh)
    results.add("complete", **memory_in_use())


def parts(
    models: RLModels, weights: Any, batch: Any
) -> Iterator[tuple[str, Callable[..., Any], tuple[Any, ...]]]:
    """(name, function, arguments) of each part, the most important first."""
    editor, scorer = models.editor, models.scorer
    size = batch["image"].shape[1:3]
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return jnp.asarray(rng.standard_normal(shape), jnp.float32)

    tokens, flux = editor.token_count(size), editor.transformer.config
    latents = normal(1, tokens, editor.latent_channels)
    condition = Condition(
        normal(1, tokens, flux.in_channels - editor.latent_channels),
        image_ids(token_grid(*size, editor.vae.config.scale_factor)),
    )
    embeds = PromptEmbeds(batch["prompt_embeds"], batch["pooled_prompt_embeds"])
    sigma = jnp.full((1,), 0.5)

    def forward(transformer: Any, latents: Any, condition: Any, embeds: Any) -> Any:
        return editor.velocity(transformer, latents, condition, embeds, 0.5, 1.0)

    def guided(transformer: Any, latents: Any, condition: Any, embeds: Any) -> Any:
        velocity = editor.guided_velocity(
            transformer, condition, embeds, embeds, true_cfg_scale=SCALE
        )
        return velocity(latents, sigma)

    inputs = (weights.base, latents, condition, embeds)
    yield "transformer, one branch", forward, inputs
    yield "transformer, two branches (true guidance)", guided, inputs

    queries = QueryBatch(batch["query_prefix"], batch["query_suffix"], batch["query_suffix_mask"])
    pair = (weights.judge, batch["image"], batch["target"], queries)

    def hinge(judge: Any, image: Any, reference: Any, queries: Any) -> Any:
        yes, _ = scorer.score(judge, image, reference, queries)
        return jnp.mean(jnp.maximum(0.9 - jnp.exp(yes), 0.0))

    yield "judge, a pair in four dimensions", scorer.score, pair
    yield "judge, forward and gradient by the picture", jax.value_and_grad(hinge, 1), pair

    def decode(vae: Any, latents: Any) -> Any:
        return editor.decode(vae, latents, size)

    def decode_back(vae: Any, latents: Any, cotangent: Any) -> Any:
        return jax.vjp(lambda x: decode(vae, x), latents)[1](cotangent)

    yield "decode", decode, (weights.vae, latents)
    yield "decode, forward and gradient", decode_back, (weights.vae, latents, batch["image"])
    yield "encode condition", editor.encode_condition, (weights.vae, batch["image"], batch["mask"])


def edits(results: Results, models: RLModels, config: Any, weights: Any, mesh: Any) -> None:
    """Whole edits of one picture: encode, sample, decode, to bytes."""
    size = largest_size(FrozenConfigDict(config))
    job = candidates_jobs(FrozenConfigDict(config), mesh)["candidates"]
    _, abstract, _ = job.arguments
    batch = random_arrays(abstract, 1)
    points = abstract.sigmas.shape[1]
    compiled = {}
    for with_guidance, steps in EDITS:
        sigmas = sigma_table([models.editor.sigmas(steps, size)], points)
        inputs = batch._replace(sigmas=jnp.asarray(sigmas), true_cfg_scale=jnp.full((1,), SCALE))
        params = job.arguments[0]._replace(transformer=weights.base, vae=weights.vae)
        arguments = (params, inputs, jnp.int32(steps))
        if with_guidance not in compiled:
            generate = make_generate(models.editor, size, mesh, guided=with_guidance)
            compiled[with_guidance] = compile_timed(generate.lower(*arguments))
        function, compiling = compiled[with_guidance]
        jax.block_until_ready(function(params, inputs, jnp.int32(1)))
        start = time.perf_counter()
        pixels = jax.device_get(function(*arguments))
        results.add(
            "edit",
            seconds=time.perf_counter() - start,
            num_steps=steps,
            forwards_per_step=1 + with_guidance,
            compile_seconds=compiling,
            planned=dataclasses.asdict(memory_of(function)),
            deviation=float(pixels.std()),
            **memory_in_use(),
        )
        if results.left() < 10:
            break


if __name__ == "__main__":
    main()
