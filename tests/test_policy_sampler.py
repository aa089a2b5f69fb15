"""Properties of the sampler that hold for every network."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilations import compilations

from onereward_jax.parallel import batch_sharding, make_mesh, mesh_jit
from onereward_jax.policy import (
    Condition,
    NoiseSchedule,
    PromptEmbeds,
    denoise,
    euler_step,
    guided,
    sigma_table,
)
from onereward_jax.policy.sampler import trajectory
from onereward_jax.train_compile.hlo import collective_traffic

BATCH, TOKENS, CHANNELS = 3, 4, 6
SCHEDULE = NoiseSchedule(use_dynamic_shifting=True)


def velocity(latents: jax.Array, sigma: jax.Array) -> jax.Array:
    """A velocity that is neither linear nor the same for all samples."""
    return jnp.tanh(latents * 1.5 + jnp.cos(5 * sigma)[:, None, None]) - latents[:, ::-1]


@pytest.fixture(scope="module")
def noise() -> jax.Array:
    return jax.random.normal(jax.random.key(0), (BATCH, TOKENS, CHANNELS))


@pytest.fixture(scope="module")
def sample() -> jax.stages.Wrapped:
    @jax.jit
    def sample(x, sigmas, start, stop):
        return denoise(velocity, x, sigmas, start, stop)

    return sample


def test_denoising_in_two_legs_equals_one_and_steps_alone(noise, sample) -> None:
    sigmas = SCHEDULE.sigmas(9, 64)
    path = [noise]
    for sigma, following in itertools.pairwise(np.asarray(sigmas, np.float32)):
        levels = jnp.full(BATCH, sigma), jnp.full(BATCH, following)
        path.append(euler_step(path[-1], velocity(path[-1], levels[0]), *levels))
    with compilations() as compiled:
        for start, middle, stop in ((0, 4, 9), (0, 0, 3), (2, 8, 8)):
            middle_latents = sample(path[start], sigmas, start, middle)
            np.testing.assert_allclose(middle_latents, path[middle], atol=1e-6)
            legs = sample(middle_latents, sigmas, middle, stop)
            np.testing.assert_array_equal(legs, sample(path[start], sigmas, start, stop))
    assert compiled.count("jit(sample)") == 1, "ranges must share one compiled function"
    with pytest.raises(ValueError, match="stop 10: the grid has only 9 steps"):
        denoise(velocity, noise, sigmas, 0, 10)


def test_candidates_of_mixed_settings_equal_each_alone(noise, sample) -> None:
    settings = [(9, 1.0), (5, 0.8), (7, 0.5)]
    rows = [SCHEDULE.sigmas(steps, 64, strength) for steps, strength in settings]
    together = sample(noise, sigma_table(rows, 12), 0, max(map(len, rows)) - 1)
    for index, row in enumerate(rows):
        one = slice(index, index + 1)
        alone = denoise(velocity, noise[one], row, 0, len(row) - 1)
        np.testing.assert_allclose(together[one], alone, atol=1e-6)


def test_a_straight_line_is_sampled_exactly_in_any_number_of_steps(noise) -> None:
    clean = jnp.sin(noise * 3)
    for steps in (1, 3):
        sigmas = SCHEDULE.sigmas(steps, 64)
        found = denoise(lambda x, sigma: noise - clean, noise, sigmas, 0, steps)
        np.testing.assert_allclose(found, clean, atol=2e-6)


def test_steps_keep_float32_under_a_bfloat16_network(noise) -> None:
    coarse = velocity(noise, jnp.full((BATCH,), 0.5)).astype(jnp.bfloat16)
    found = euler_step(noise, coarse, 0.5, 0.499)
    expected = np.float64(noise) - 0.001 * np.float64(coarse.astype(jnp.float32))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


def ab2_by_hand(x, sigmas):
    """Adams-Bashforth on a row of levels, with the widths of the steps, in float64."""
    last = None
    for index, (sigma, following) in enumerate(itertools.pairwise(np.float64(sigmas))):
        v = np.float64(velocity(jnp.float32(x), jnp.full(len(x), sigma, jnp.float32)))
        step, slope = following - sigma, 0.0
        if last is not None:
            slope = (v - last) / (sigma - np.float64(sigmas[index - 1]))
        x, last = x + step * v + step**2 / 2 * slope, v
    return x


def test_ab2_follows_its_formula_from_any_start_and_on_grids_of_its_own_each(noise) -> None:
    rows = [SCHEDULE.sigmas(steps, 64, strength) for steps, strength in ((9, 1.0), (5, 0.8))]
    sample = jax.jit(lambda x, grid, *ends: denoise(velocity, x, grid, *ends, "ab2"))
    together = sample(noise[:2], sigma_table(rows, 12), 0, 9)
    for index, row in enumerate(rows):
        one = slice(index, index + 1)
        expected = ab2_by_hand(noise[one], row)
        np.testing.assert_allclose(together[one], expected, atol=1e-5)
        later = sample(noise[one], row, 2, len(row) - 1)
        np.testing.assert_allclose(later, ab2_by_hand(noise[one], row[2:]), atol=1e-5)
    finished, latents = trajectory(velocity, noise[:1], jnp.asarray(rows[0]), "ab2")
    np.testing.assert_allclose(finished, together[:1], atol=1e-6)
    np.testing.assert_allclose(latents[2], ab2_by_hand(noise[:1], rows[0][:3]), atol=1e-5)


def test_twice_as_many_steps_quarter_the_error_of_ab2(noise) -> None:
    sample = jax.jit(
        lambda x, grid, stop, solver: denoise(velocity, x, grid, 0, stop, solver),
        static_argnums=3,
    )

    def error(steps, solver):
        def ended(steps, solver):
            grid = sigma_table([SCHEDULE.sigmas(steps, 64)] * BATCH, 513)
            return np.asarray(sample(noise, grid, steps, solver))

        return np.sqrt(np.mean((ended(steps, solver) - ended(512, "ab2")) ** 2))

    for solver, factor in (("euler", 2), ("ab2", 4)):
        assert error(20, solver) / error(40, solver) == pytest.approx(factor, rel=0.25)
    assert error(20, "ab2") < 0.5 * error(40, "euler")


class Recorder:
    """A conditional network whose output shows which inputs it was given."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, latents, condition, embeds, sigma, guidance_scale) -> jax.Array:
        self.batches.append(latents.shape[0])
        prompt = embeds.prompt_embeds.sum((1, 2)) + 10 * embeds.pooled_prompt_embeds.sum(1)
        rest = condition.tokens.sum((1, 2)) + sigma + 100 * guidance_scale
        return latents * prompt[:, None, None] + rest[:, None, None]


@pytest.fixture(scope="module")
def inputs() -> tuple[Condition, PromptEmbeds, PromptEmbeds]:
    keys = jax.random.split(jax.random.key(1), 5)
    condition = Condition(jax.random.normal(keys[0], (BATCH, TOKENS, 2)), jnp.zeros((TOKENS, 3)))
    positive, negative = (
        PromptEmbeds(jax.random.normal(a, (BATCH, 5, 3)), jax.random.normal(b, (BATCH, 2)))
        for a, b in (keys[1:3], keys[3:5])
    )
    return condition, positive, negative


def test_guidance_is_one_call_with_both_branches_of_a_sample_beside_each_other(
    noise, inputs
) -> None:
    condition, positive, negative = inputs
    sigma, embedded = jnp.array([0.1, 0.5, 0.9]), jnp.array([1.0, 2.0, 30.0])
    plain = Recorder()
    v_pos = plain(noise, condition, positive, sigma, embedded)
    v_neg = plain(noise, condition, negative, sigma, embedded)

    doubled = []

    def spy(latents, condition, embeds, sigma, guidance_scale) -> jax.Array:
        doubled.append(embeds)
        return Recorder()(latents, condition, embeds, sigma, guidance_scale)

    for scale in (4.0, jnp.array([1.0, 0.0, 7.5]), jnp.float32(1.0)):
        doubled.clear()
        found = guided(
            spy, condition, positive, negative, guidance_scale=embedded, true_cfg_scale=scale
        )(noise, sigma)
        each = np.broadcast_to(np.asarray(scale), (BATCH,))[:, None, None]
        np.testing.assert_allclose(found, v_neg + each * (v_pos - v_neg), rtol=1e-5, atol=1e-4)
        assert len(doubled) == 1, "both branches go through the network in one call"
        np.testing.assert_array_equal(doubled[0].prompt_embeds[0::2], negative.prompt_embeds)
        np.testing.assert_array_equal(doubled[0].prompt_embeds[1::2], positive.prompt_embeds)


def test_guidance_moves_nothing_between_the_devices_of_a_sharded_batch() -> None:
    mesh = make_mesh(2, 4, 1)
    samples = batch_sharding(mesh)

    def sample(noise, tokens, positive, negative):
        condition = Condition(tokens, jnp.zeros((TOKENS, 3)))
        velocity = guided(Recorder(), condition, positive, negative, true_cfg_scale=4.0)
        return denoise(velocity, noise, jnp.linspace(1.0, 0.0, 5), 0, 4)

    def drawn(seed, *shape):
        return 0.1 * jax.random.normal(jax.random.key(seed), (16, *shape))

    embeds = (PromptEmbeds(drawn(seed, 5, 3), drawn(seed + 1, 2)) for seed in (0, 2))
    arguments = (drawn(4, TOKENS, CHANNELS), drawn(5, TOKENS, 2), *embeds)
    there = jax.device_put(arguments, samples)
    run = mesh_jit(sample, mesh, out_shardings=samples)
    assert collective_traffic(run.lower(*there).compile().as_text(), 1.0) == {}
    np.testing.assert_allclose(run(*there), sample(*arguments), rtol=1e-5, atol=1e-5)


def test_guidance_scale_one_computes_the_positive_branch_only(noise, inputs) -> None:
    condition, positive, negative = inputs
    sigma, network = jnp.full((BATCH,), 0.5), Recorder()
    for negatives in (None, negative):
        guided(network, condition, positive, negatives)(noise, sigma)
    assert network.batches == [BATCH, BATCH]
    with pytest.raises(ValueError, match="true_cfg_scale 4.0 needs embeddings"):
        guided(network, condition, positive, None, true_cfg_scale=4.0)
