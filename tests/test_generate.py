"""Whole edits: each row as sampled alone, whatever its neighbours; one compiled function.

Looked at before they are rounded to pixels, but for one test.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np
import pytest
import tiny_models
from compilations import compilations

from onereward_jax.common.pixels import to_uint8
from onereward_jax.models.flux import FluxTransformer
from onereward_jax.parallel import batch_sharding, make_mesh, mesh_jit
from onereward_jax.policy import FillPolicy, PolicyParams, PromptEmbeds, euler_step, sigma_table
from onereward_jax.policy.generate import EditBatch, edited, make_generate
from onereward_jax.policy.policy_loader import abstract_params
from onereward_jax.training.count_jaxpr_flops import Assumptions, function_flops

SIZE = (tiny_models.SIDE, tiny_models.SIDE)
POINTS = 8
ROWS = 8
PLANS = [(7, 1.0), (2, 1.0), (5, 0.6), (3, 1.0), (4, 0.5), (6, 1.0), (5, 0.9), (1, 1.0)]
"""Steps and strength of each row."""


@dataclasses.dataclass(frozen=True)
class World:
    """An editor that listens to both guidance scales, its weights, and a batch of mixed edits."""

    editor: FillPolicy
    params: PolicyParams
    batch: EditBatch

    @property
    def steps(self) -> np.int32:
        return np.int32(max(steps for steps, _ in PLANS))


@pytest.fixture(scope="module")
def world() -> World:
    tiny = tiny_models.models().editor
    config = dataclasses.replace(tiny.transformer.config, guidance_embeds=True)
    editor = dataclasses.replace(tiny, transformer=FluxTransformer(config))
    shapes = abstract_params(editor, make_mesh(devices=jax.devices()[:1]))
    params = tiny_models.lively(jax.tree.map(lambda leaf: np.zeros(leaf.shape), shapes), 2)
    rest = tiny_models.rl_batch(ROWS)
    batch = EditBatch(
        image=rest["image"],
        mask=rest["mask"],
        embeds=PromptEmbeds(rest["prompt_embeds"], rest["pooled_prompt_embeds"]),
        negative_embeds=PromptEmbeds(
            rest["negative_prompt_embeds"], rest["negative_pooled_prompt_embeds"]
        ),
        sigmas=sigma_table([editor.sigmas(steps, SIZE, part) for steps, part in PLANS], POINTS),
        guidance_scale=np.linspace(1.0, 30.0, ROWS, dtype=np.float32),
        true_cfg_scale=np.float32([1.0, 4.0, 2.0, 7.0, 1.0, 3.0, 0.0, 5.0]),
        noise_seed=np.int32([3, 4, 5, 3, 2**31 - 1, 0, 7, 8]),
    )
    return World(editor, params, batch)


@pytest.fixture(scope="module")
def generate(world):
    return unrounded(world.editor)


def unrounded(editor, sizes=(8, 1, 1)):
    """As `make_generate` compiles it, without the rounding."""
    mesh = make_mesh(*sizes)
    rows = batch_sharding(mesh)
    function = functools.partial(edited, editor, SIZE)
    return mesh_jit(function, mesh, in_shardings=(None, rows, None), out_shardings=rows)


@pytest.fixture(scope="module")
def images(world, generate) -> np.ndarray:
    return np.asarray(generate(world.params, world.batch, world.steps))


def rows_of(batch: EditBatch, rows) -> EditBatch:
    return jax.tree.map(lambda leaf: leaf[np.asarray(rows)], batch)


def test_each_row_is_what_plain_sampling_of_it_alone_gives(world, images) -> None:
    editor, params = world.editor, world.params

    @jax.jit
    def step(latents, one, sigma, following):
        condition = editor.encode_condition(params.vae, one.image, one.mask)
        positive, negative = (
            editor.velocity(
                params.transformer, latents, condition, embeds, sigma, one.guidance_scale
            )
            for embeds in (one.embeds, one.negative_embeds)
        )
        velocity = negative + one.true_cfg_scale * (positive - negative)
        return euler_step(latents, velocity, sigma, following)

    start = jax.jit(editor.start_from_source)
    decode = jax.jit(lambda latents: editor.decode(params.vae, latents, SIZE))
    beyond = 0.0
    for row, (steps, strength) in enumerate(PLANS):
        one = jax.tree.map(jax.numpy.asarray, rows_of(world.batch, [row]))
        sigmas = editor.sigmas(steps, SIZE, strength)
        noise = editor.noise(jax.random.key(int(one.noise_seed[0])), 1, SIZE)
        latents = start(params.vae, one.image, noise, sigmas[0])
        for sigma, following in zip(sigmas, sigmas[1:]):
            latents = step(latents, one, sigma, following)
        expected = np.asarray(decode(latents))[0]
        beyond = max(beyond, np.abs(expected).max())
        np.testing.assert_allclose(images[row], np.clip(expected, -1, 1), rtol=1e-3, atol=1e-3)
    assert beyond > 1.0, "nothing had to be clipped"


def test_neighbours_place_and_padding_do_not_change_a_row(world, generate, images) -> None:
    """As candidates are drawn: fewer plans than the batch has room for, the last one repeated."""
    plans = [5, 2, 6, 0, 1]
    padded = plans + [plans[-1]] * (ROWS - len(plans))
    found = np.asarray(generate(world.params, rows_of(world.batch, padded), world.steps))
    np.testing.assert_allclose(found, images[padded], rtol=1e-5, atol=1e-5)


def test_steps_beyond_a_rows_grid_change_nothing_and_compile_nothing(
    world, generate, images
) -> None:
    short = [row for row, (steps, _) in enumerate(PLANS) if steps <= 5]
    batch = rows_of(world.batch, (short * 2)[:ROWS])
    with compilations() as compiled:
        found = {
            steps: np.asarray(generate(world.params, batch, np.int32(steps))) for steps in (4, 5, 7)
        }
    np.testing.assert_array_equal(found[5], found[7])
    changed = (found[4] != found[5]).any((1, 2, 3))
    np.testing.assert_array_equal(changed, batch.sigmas[:, 4] > 0)
    assert "jit(generate)" not in compiled


def test_what_is_under_the_mask_matters_below_full_strength_only(world, generate, images) -> None:
    """And all that is kept is seen; nothing is pasted, so kept pixels come from the decoder."""
    full = world.batch.sigmas[:, 0] == 1.0
    assert full.any() and not full.all()
    other = -world.batch.image
    for mask, expected in (
        (world.batch.mask, ~full),
        (1.0 - world.batch.mask, np.ones(ROWS, bool)),
    ):
        image = np.where(mask > 0, other, world.batch.image)
        found = np.asarray(generate(world.params, world.batch._replace(image=image), world.steps))
        distance = np.abs(found - images).max((1, 2, 3))
        np.testing.assert_array_equal(distance > 1e-4, expected)
    kept = (world.batch.mask == 0)[..., 0]
    assert (np.abs(images - world.batch.image)[kept] > 0.01).mean() > 0.9


def test_seeds_and_both_guidance_scales_decide(world, generate, images) -> None:
    """Rows with equal seeds draw equal noise; a change of one setting changes its row alone."""
    for name in ("noise_seed", "guidance_scale", "true_cfg_scale"):
        values = getattr(world.batch, name).copy()
        values[2] += 1
        changed = world.batch._replace(**{name: values})
        found = np.asarray(generate(world.params, changed, world.steps))
        rows = np.abs(found - images).max((1, 2, 3)) > 1e-4
        np.testing.assert_array_equal(np.flatnonzero(rows), [2], name)


def test_pasted_back_the_source_stays_outside_the_mask_bit_for_bit(world, images) -> None:
    editor = dataclasses.replace(world.editor, paste_back=True)
    found = np.asarray(unrounded(editor)(world.params, world.batch, world.steps))
    inside = np.broadcast_to(world.batch.mask > 0.5, found.shape)
    np.testing.assert_array_equal(found[~inside], np.asarray(world.batch.image)[~inside])
    np.testing.assert_allclose(found[inside], images[inside], atol=1e-5)
    assert 0 < inside.mean() < 1


def test_without_true_guidance_half_of_the_operations_make_the_same_pictures(world, images) -> None:
    rows = np.flatnonzero(world.batch.true_cfg_scale == 1.0)
    batch = rows_of(world.batch, np.resize(rows, 8))
    operations = {}
    for guided in (False, True):
        function = functools.partial(edited, world.editor, SIZE, guided=guided)
        operations[guided] = function_flops(
            function, world.params, batch, world.steps, assumptions=Assumptions(loop_trips=50.0)
        )
        found = np.asarray(jax.jit(function)(world.params, batch, world.steps))
        np.testing.assert_allclose(found[: len(rows)], images[rows], atol=1e-4)
    assert operations[False] < 0.6 * operations[True]


def test_tokens_shared_by_devices_give_the_same_pictures(world, images) -> None:
    generate = unrounded(world.editor, sizes=(1, 2, 2, 2))
    shardings = jax.tree.map(
        lambda leaf: leaf.sharding, abstract_params(world.editor, generate.mesh)
    )
    found = generate(jax.device_put(world.params, shardings), world.batch, world.steps)
    np.testing.assert_allclose(found, images, atol=1e-4)


def test_pictures_leave_the_devices_as_the_pixels_that_the_host_would_have_made(
    world, images
) -> None:
    generate = make_generate(world.editor, SIZE, make_mesh(8, 1, 1))
    found = generate(world.params, world.batch, world.steps)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, to_uint8(images))

    every = np.arange(256, dtype=np.float32)
    random = np.random.default_rng(0).uniform(-1, 1, 3 * 100_000 - 512)
    values = np.float32([*(every / 127.5 - 1), *((every + 0.5) / 127.5 - 1), *random])
    values = values.reshape(1, -1, 100, 3)
    np.testing.assert_array_equal(jax.jit(to_uint8)(values)[0], to_uint8(values[0]))
