"""The noise schedule equals diffusers' scheduler as the fill pipeline sets it up."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux_fill import FluxFillPipeline, calculate_shift

from onereward_jax.policy import NoiseSchedule, add_noise, predict_x0, sigma_table, velocity_target
from onereward_jax.policy.noise_schedule import first_step

SCHEDULERS = {
    "flux fill": {"shift": 3.0, "use_dynamic_shifting": True},
    "other points": {
        "use_dynamic_shifting": True,
        "base_shift": 0.3,
        "max_shift": 1.4,
        "base_image_seq_len": 64,
        "max_image_seq_len": 1024,
    },
    "static shift": {"shift": 2.5},
}


def pipeline_sigmas(
    scheduler: FlowMatchEulerDiscreteScheduler, num_steps: int, tokens: int, strength: float
) -> np.ndarray:
    """Noise levels that `FluxFillPipeline.__call__` would step through, by its own functions."""
    config = scheduler.config
    mu = calculate_shift(
        tokens,
        config.base_image_seq_len,
        config.max_image_seq_len,
        config.base_shift,
        config.max_shift,
    )
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / num_steps, num_steps), mu=mu)
    pipeline = FluxFillPipeline.__new__(FluxFillPipeline)
    object.__setattr__(pipeline, "scheduler", scheduler)
    timesteps, remaining = FluxFillPipeline.get_timesteps(pipeline, num_steps, strength, "cpu")
    assert len(timesteps) == remaining
    return scheduler.sigmas[scheduler.begin_index :].numpy()


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("tokens", [16, 256, 1024, 4096, 5000])
def test_sigmas_equal_the_pipelines(name: str, tokens: int) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(**SCHEDULERS[name])
    schedule = NoiseSchedule.from_dict(scheduler.config)
    for num_steps in (1, 4, 20, 30, 50):
        for strength in (1.0, 0.95, 0.7, 0.35):
            if int(num_steps * strength) < 1:
                continue
            expected = pipeline_sigmas(scheduler, num_steps, tokens, strength)
            found = schedule.sigmas(num_steps, tokens, strength)
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found, expected)


def test_configuration_of_another_scheduler_is_refused_by_field() -> None:
    with pytest.raises(ValueError, match="use_karras_sigmas"):
        NoiseSchedule.from_dict({"use_karras_sigmas": True})
    with pytest.raises(ValueError, match="DDIMScheduler"):
        NoiseSchedule.from_dict({"_class_name": "DDIMScheduler"})
    with pytest.raises(ValueError, match="strength 0.0 leaves none of 20 steps"):
        first_step(20, 0.0)
    with pytest.raises(ValueError, match="strength is 1.5"):
        first_step(20, 1.5)


def test_path_equals_the_schedulers_and_is_inverted_by_predict_x0() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(**SCHEDULERS["flux fill"])
    sigmas = pipeline_sigmas(scheduler, 8, 256, 0.6)
    clean, noise = jax.random.normal(jax.random.key(0), (2, 3, 5, 4))
    expected = scheduler.scale_noise(
        torch.tensor(np.array(clean)), scheduler.timesteps[3:4], torch.tensor(np.array(noise))
    )
    np.testing.assert_allclose(add_noise(clean, noise, sigmas[0]), expected.numpy(), atol=1e-6)

    each = jnp.array([0.02, 0.5, 1.0])
    noised = add_noise(clean, noise, each)
    velocity = velocity_target(clean, noise)
    np.testing.assert_allclose(predict_x0(noised, velocity, each), clean, atol=1e-6)
    slope = jax.jvp(lambda s: add_noise(clean, noise, s), (each,), (jnp.ones(3),))[1]
    np.testing.assert_allclose(velocity, slope, atol=1e-6)


def test_path_is_float32_under_bfloat16_inputs() -> None:
    clean, noise = jax.random.normal(jax.random.key(1), (2, 1, 64, 4), jnp.bfloat16)
    fine = add_noise(clean.astype(jnp.float32), noise.astype(jnp.float32), 0.3)
    np.testing.assert_array_equal(add_noise(clean, noise, 0.3), fine)


def test_sigma_table_pads_with_zero_length_steps() -> None:
    schedule = NoiseSchedule()
    rows = [schedule.sigmas(2, 16), schedule.sigmas(4, 16)]
    table = sigma_table(rows, 6)
    np.testing.assert_allclose(table[0], [1, 0.5, 0, 0, 0, 0])
    np.testing.assert_allclose(table[1], [1, 0.75, 0.5, 0.25, 0, 0])
    with pytest.raises(ValueError, match="grid 1 has 5 noise levels, the table only 4"):
        sigma_table(rows, 4)
