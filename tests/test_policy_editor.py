"""The editor equals diffusers' FluxFillPipeline, step by step, from a saved pipeline folder."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch_pipeline
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    FluxFillPipeline,
)
from torch_pipeline import random_transformer, random_vae

from onereward_jax.parallel import make_mesh
from onereward_jax.policy import (
    Condition,
    FillPolicy,
    PolicyParams,
    PromptEmbeds,
    denoise,
    init_params,
    load_policy,
    predict_x0,
)
from onereward_jax.policy.latent_packing import image_ids

SIZE = (16, 24)
BATCH, STEPS, TEXT = 2, 4, 5
JOINT, POOLED = 12, 6
ONE_DEVICE = make_mesh(devices=jax.devices()[:1])
TOLERANCE = {"rtol": 2e-4, "atol": 2e-4}


def tiny_pipeline(guidance_embeds: bool) -> FluxFillPipeline:
    """A pipeline of random components; prompts are given as embeddings."""
    torch.manual_seed(1)
    vae = random_vae((8, 16))
    transformer = random_transformer(16, JOINT, POOLED, guidance_embeds)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    pipeline = FluxFillPipeline(
        scheduler=scheduler, vae=vae, transformer=transformer,
        text_encoder=None, tokenizer=None, text_encoder_2=None, tokenizer_2=None,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


class World:
    """One saved pipeline, loaded on our side, and a batch for both."""

    def __init__(self, folder: Path, guidance_embeds: bool) -> None:
        self.pipeline = tiny_pipeline(guidance_embeds)
        self.pipeline.save_pretrained(folder)
        self.editor, self.params = load_policy(folder, ONE_DEVICE)
        rng = np.random.default_rng(3)
        draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
        self.image = jnp.tanh(draw(BATCH, *SIZE, 3))
        self.mask = (draw(BATCH, *SIZE, 1) > 0).astype(jnp.float32)
        self.noise = draw(BATCH, self.editor.token_count(SIZE), 16)
        self.positive, self.negative = (
            PromptEmbeds(draw(BATCH, TEXT, JOINT), draw(BATCH, POOLED)) for _ in range(2)
        )


@pytest.fixture(scope="module")
def worlds(tmp_path_factory) -> dict[bool, World]:
    return {embeds: World(tmp_path_factory.mktemp("pipeline"), embeds) for embeds in (False, True)}


def to_torch(images: jax.Array) -> torch.Tensor:
    return torch.from_numpy(np.array(images).transpose(0, 3, 1, 2).copy())


def run_pipeline(
    world: World,
    latents: jax.Array | None,
    guidance_scale: float,
    cfg_scale: float,
    strength: float,
) -> tuple[np.ndarray, np.ndarray]:
    """(latents after each step [steps, b, n, c], decoded images in [0, 1] NHWC)."""
    pipeline, steps = world.pipeline, []
    negative = [torch.from_numpy(np.array(part)) for part in world.negative]

    def keep(pipeline, index, timestep, values):
        steps.append(values["latents"].numpy())
        return values

    with torch.no_grad(), torch_pipeline.guidance(pipeline, negative, cfg_scale):
        images = pipeline(
            prompt_embeds=torch.from_numpy(np.array(world.positive.prompt_embeds)),
            pooled_prompt_embeds=torch.from_numpy(np.array(world.positive.pooled_prompt_embeds)),
            image=to_torch((world.image + 1) / 2),
            mask_image=to_torch(world.mask),
            height=SIZE[0],
            width=SIZE[1],
            strength=strength,
            num_inference_steps=STEPS,
            guidance_scale=guidance_scale,
            latents=torch.from_numpy(np.array(latents)),
            output_type="np",
            callback_on_step_end=keep,
        ).images
    return np.stack(steps), images


@pytest.mark.parametrize(
    ("guidance_embeds", "guidance_scale", "cfg_scale", "strength"),
    [(False, 1.0, 1.0, 1.0), (False, 1.0, 4.0, 1.0), (True, 3.5, 1.0, 1.0), (True, 1.0, 4.0, 0.6)],
)
def test_every_step_and_the_picture_equal_the_pipelines(
    worlds: dict[bool, World],
    guidance_embeds: bool,
    guidance_scale: float,
    cfg_scale: float,
    strength: float,
) -> None:
    world = worlds[guidance_embeds]
    editor, params = world.editor, world.params
    sigmas = editor.sigmas(STEPS, SIZE, strength)
    start = editor.start_from_source(params.vae, world.image, world.noise, sigmas[0])

    @jax.jit
    def ours(params: PolicyParams, start: jax.Array) -> tuple[jax.Array, jax.Array]:
        condition = editor.encode_condition(params.vae, world.image, world.mask)
        velocity = editor.guided_velocity(
            params.transformer,
            condition,
            world.positive,
            world.negative,
            guidance_scale=guidance_scale,
            true_cfg_scale=cfg_scale,
        )

        def step(latents: jax.Array, index: jax.Array) -> tuple[jax.Array, jax.Array]:
            latents = denoise(velocity, latents, sigmas, index, index + 1)
            return latents, latents

        last, path = jax.lax.scan(step, start, jnp.arange(len(sigmas) - 1))
        return path, editor.decode(params.vae, last, SIZE)

    found_steps, found_images = ours(params, start)
    steps, images = run_pipeline(world, start, guidance_scale, cfg_scale, strength)
    assert len(steps) == len(sigmas) - 1
    assert np.abs(steps - np.asarray(start)).max() > 0.1, "the network must move the latents"
    np.testing.assert_allclose(found_steps, steps, **TOLERANCE)
    in_unit = np.clip(np.asarray(found_images) / 2 + 0.5, 0, 1)
    np.testing.assert_allclose(in_unit, images, **TOLERANCE)


def test_start_from_source_equals_the_pipelines(worlds: dict[bool, World]) -> None:
    world = worlds[False]
    pipeline, editor = world.pipeline, world.editor
    run_pipeline(world, world.noise, 1.0, 1.0, 0.6)
    pipeline.scheduler._step_index = None
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        # the posterior's noise is drawn first and has no effect, the latents' noise second
        expected, _ = pipeline.prepare_latents(
            to_torch(world.image), torch.zeros(BATCH), BATCH, 4, *SIZE, torch.float32, "cpu",
            generator,
        )  # fmt: skip
    generator.manual_seed(5)
    shape = (BATCH, 4, SIZE[0] // 2, SIZE[1] // 2)
    torch.randn(shape, generator=generator)
    noise = torch.randn(shape, generator=generator)
    noise = pipeline._pack_latents(noise, *shape)
    sigma = editor.sigmas(STEPS, SIZE, 0.6)[0]
    assert 0 < sigma < 1
    found = editor.start_from_source(
        world.params.vae, world.image, jnp.asarray(noise.numpy()), sigma
    )
    np.testing.assert_allclose(found, expected.numpy(), **TOLERANCE)


def test_sampled_encoding_has_the_posteriors_moments(worlds: dict[bool, World]) -> None:
    editor, vae = worlds[False].editor, worlds[False].params.vae
    conv = vae["encoder"]["conv_out"]
    conv = {**conv, "bias": conv["bias"].at[4:].set(jnp.log(0.25))}
    wide = {**vae, "encoder": {**vae["encoder"], "conv_out": conv}}
    images = jnp.repeat(worlds[False].image[:1], 400, axis=0)
    encode = jax.jit(editor.encode_image)
    mean, samples = encode(vae, images)[0], encode(wide, images, jax.random.key(0))
    deviation = 0.5 * editor.vae.config.scaling_factor
    np.testing.assert_allclose(samples.std(0).mean(), deviation, rtol=0.02)
    np.testing.assert_allclose(samples.mean(0), mean, atol=5 * deviation / 20)


def test_rollout_has_no_gradient_and_the_single_step_has(worlds: dict[bool, World]) -> None:
    """Algorithm 1: denoise to a traced t without gradient, then one differentiable x'_0."""
    world = worlds[True]
    editor, params = world.editor, world.params
    sigmas = jnp.asarray(editor.sigmas(STEPS, SIZE))

    @jax.jit
    def gradients(transformer, condition: Condition, step: jax.Array) -> tuple:
        def rollout(transformer) -> jax.Array:
            return editor.denoise(
                transformer, world.noise, condition, world.positive, None, sigmas, 0, step
            )

        def prediction(transformer, latents: jax.Array) -> jax.Array:
            velocity = editor.velocity(
                transformer, latents, condition, world.positive, sigmas[step], 1.0
            )
            return editor.decode(params.vae, predict_x0(latents, velocity, sigmas[step]), SIZE)

        latents = rollout(transformer)
        return (
            jax.grad(lambda p: rollout(p).sum())(transformer),
            jax.grad(lambda p: prediction(p, latents).mean())(transformer),
        )

    tokens = jnp.ones((BATCH, editor.token_count(SIZE), 32))
    condition = Condition(tokens, image_ids((4, 6)))
    rollout, prediction = (
        jax.tree.leaves(tree) for tree in gradients(params.transformer, condition, 3)
    )
    assert not any(leaf.any() for leaf in rollout)
    assert all(jnp.isfinite(leaf).all() for leaf in prediction)
    assert all(leaf.any() for leaf in prediction)


def test_a_fresh_editor_on_a_mesh_samples_what_one_device_samples(
    worlds: dict[bool, World],
) -> None:
    editor, mesh = worlds[True].editor, make_mesh(data=2, fsdp=4)
    with jax.set_mesh(mesh):
        fresh = init_params(editor, jax.random.key(0), mesh).transformer
    kernel = fresh["x_embedder"]["kernel"]
    assert kernel.addressable_shards[0].data.size == kernel.size // 4
    # A fresh transformer predicts zero, as it should: give the last layer something to say.
    assert not fresh["proj_out"]["kernel"].any()

    keys = jax.random.split(jax.random.key(1), 7)
    noise = editor.noise(keys[0], 8, SIZE)
    condition = Condition(jax.random.normal(keys[1], (*noise.shape[:2], 32)), image_ids((4, 6)))
    positive, negative = (
        PromptEmbeds(jax.random.normal(a, (8, TEXT, JOINT)), jax.random.normal(b, (8, POOLED)))
        for a, b in (keys[2:4], keys[4:6])
    )
    kernel = jax.random.normal(keys[6], fresh["proj_out"]["kernel"].shape)
    moving = {**fresh, "proj_out": {"kernel": kernel, "bias": jnp.zeros(kernel.shape[1])}}

    def sample(transformer, stop: jax.Array) -> jax.Array:
        return editor.denoise(
            transformer, noise, condition, positive, negative, editor.sigmas(3, SIZE), 0, stop,
            true_cfg_scale=jnp.linspace(1.0, 5.0, 8),
        )  # fmt: skip

    with jax.set_mesh(mesh):
        sharded = jax.jit(sample)(moving, 2)
    alone = jax.jit(sample)(jax.device_put(moving, jax.devices()[0]), 2)
    np.testing.assert_allclose(sharded, alone, **TOLERANCE)


def test_models_that_do_not_fit_are_refused(worlds: dict[bool, World]) -> None:
    editor = worlds[False].editor
    config = editor.transformer.config
    plain = editor.transformer.copy(config=type(config)(**{**vars(config), "in_channels": 16}))
    with pytest.raises(ValueError, match="in_channels is 16; with this VAE a fill model has 48"):
        FillPolicy(plain, editor.vae, editor.schedule)
