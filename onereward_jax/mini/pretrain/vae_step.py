"""Training step of the autoencoder: reconstruction with a small KL penalty on the latents."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, PRNGKeyArray, PyTree

from onereward_jax.common.rng import stream
from onereward_jax.models.vae import AutoencoderKL
from onereward_jax.parallel import MeshFunction
from onereward_jax.training.apply_gradients import apply_gradients
from onereward_jax.training.metrics import Metrics, mean_of
from onereward_jax.training.train_state import TrainState, jit_step


@dataclasses.dataclass(frozen=True)
class VaeLoss:
    """Weights of the loss.

    Attributes:
      kl_weight: weight of the KL divergence to the standard normal, per latent value.
      squared_weight: weight of the squared error relative to the absolute error.
    """

    kl_weight: float
    squared_weight: float


def vae_loss(
    vae: AutoencoderKL,
    params: PyTree,
    images: Float[Array, "b h w 3"],
    key: PRNGKeyArray,
    weights: VaeLoss,
) -> tuple[Float32[Array, ""], Metrics]:
    """mean |x̂ - x| + squared_weight · mean (x̂ - x)² + kl_weight · KL, with x̂ decoded from a sample.

    Args:
      vae, params: the autoencoder and its parameters, differentiated.
      images: in [-1, 1].
      key: PRNG key of the latent sample.
      weights: weights of the terms.

    Returns:
      The loss, and loss, squared_error and kl as metrics.
    """
    mean, log_variance = vae.apply({"params": params}, images, method="encode")
    noise = jax.random.normal(key, mean.shape, mean.dtype)
    latents = mean + jnp.exp(0.5 * log_variance) * noise
    error = vae.apply({"params": params}, latents, method="decode") - images
    kl = 0.5 * jnp.mean(jnp.square(mean) + jnp.exp(log_variance) - 1.0 - log_variance)
    squared = jnp.square(error)
    loss = (
        jnp.mean(jnp.abs(error))
        + weights.squared_weight * jnp.mean(squared)
        + weights.kl_weight * kl
    )
    return loss, {
        "loss": mean_of(loss[None]),
        "squared_error": mean_of(squared),
        "kl": mean_of(kl[None]),
    }


def make_vae_step(
    vae: AutoencoderKL,
    weights: VaeLoss,
    optimizer: optax.GradientTransformation,
    ema_decay: float,
    abstract: TrainState,
    mesh: Mesh,
    seed: int,
) -> MeshFunction:
    """The jitted step (state, batch) -> (state, metrics); batch["image"] in [-1, 1].

    Args:
      vae: the module.
      weights: weights of the loss.
      optimizer: from `make_optimizer`.
      ema_decay: decay of the EMA, whose weights are the result.
      abstract: shapes and shardings of the state.
      mesh: the mesh.
      seed: seed of the latent samples.
    """

    def step(state: TrainState, batch: dict[str, jax.Array]) -> tuple[TrainState, Metrics]:
        key = stream(seed, "vae", state.step)
        grad = jax.value_and_grad(vae_loss, argnums=1, has_aux=True)
        (loss, metrics), gradients = grad(vae, state.params, batch["image"], key, weights)
        return apply_gradients(state, loss, gradients, optimizer, metrics, ema_decay)

    return jit_step(step, abstract, mesh)
