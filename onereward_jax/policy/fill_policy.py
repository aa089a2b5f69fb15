"""The mask-guided editor π: the interface of FLUX Fill for the rest of the package.

Original: diffusers' `FluxFillPipeline.__call__`, with true classifier-free guidance as in the
authors' released pipeline, split into pure functions of parameters and arrays.

Single letters: b batch, n image tokens, c channels of a latent token, h, w image height and
width.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, PRNGKeyArray

from onereward_jax.data.aspect_buckets import Size
from onereward_jax.models.flux import FluxTransformer
from onereward_jax.models.vae import AutoencoderKL
from onereward_jax.models.weights import variables
from onereward_jax.policy import encode_decode, latent_packing, sampler
from onereward_jax.policy.model_inputs import Condition, PromptEmbeds
from onereward_jax.policy.noise_schedule import NoiseSchedule, Sigma, add_noise
from onereward_jax.policy.sampler import Grid, Scale, Solver, VelocityFn


class PolicyParams(NamedTuple):
    """The weights of an editor. Only the transformer is trained."""

    transformer: Any
    vae: Any


@dataclasses.dataclass(frozen=True)
class FillPolicy:
    """The static part of an editor; hashable. Parameters are arguments of its methods.

    Methods take only the part of `PolicyParams` that they need, `transformer` or `vae`, so that the
    policy, its EMA and the reference can share one editor. `transformer` may also be
    `models.lora.Adapted` weights.

    Attributes:
      transformer: the velocity network.
      vae: the autoencoder.
      schedule: the sampling schedule.
      paste_back: finished images keep the source's pixels where the mask is 0.
      solver: of `denoise` and `trajectory`, see `sampler`.

    Raises:
      ValueError: the transformer's in_channels does not match fill conditioning with this VAE.
    """

    transformer: FluxTransformer
    vae: AutoencoderKL
    schedule: NoiseSchedule
    paste_back: bool = False
    solver: Solver = "euler"

    def __post_init__(self) -> None:
        found = self.transformer.config.in_channels
        expected = 2 * self.latent_channels + self.mask_channels
        if found != expected:
            raise ValueError(
                f"transformer in_channels is {found}; with this VAE a fill model has {expected}: "
                f"latents {self.latent_channels}, masked image {self.latent_channels}, "
                f"mask {self.mask_channels}"
            )

    @property
    def latent_channels(self) -> int:
        """Channels c of a latent token."""
        return self.vae.config.latent_channels * latent_packing.PATCH**2

    @property
    def mask_channels(self) -> int:
        """Channels of a mask token."""
        return (self.vae.config.scale_factor * latent_packing.PATCH) ** 2

    def token_count(self, size: Size) -> int:
        """Number n of image tokens; raises ValueError if the size does not fit the token grid."""
        rows, columns = latent_packing.token_grid(*size, self.vae.config.scale_factor)
        return rows * columns

    def sigmas(
        self, num_steps: int, size: Size, strength: float = 1.0
    ) -> Float32[np.ndarray, "points"]:
        """The noise levels of sampling at this size: see `NoiseSchedule.sigmas`."""
        return self.schedule.sigmas(num_steps, self.token_count(size), strength)

    def encode_image(
        self, vae: Any, image: Float[Array, "b h w 3"], key: PRNGKeyArray | None = None
    ) -> Float32[Array, "b n c"]:
        """Clean latents x_0 of images in [-1, 1]: see `encode_decode.encode_image`."""
        return encode_decode.encode_image(self.vae, vae, image, key)

    def encode_condition(
        self,
        vae: Any,
        image: Float[Array, "b h w 3"],
        mask: Float[Array, "b h w 1"],
        key: PRNGKeyArray | None = None,
    ) -> Condition:
        """The fill condition of source and mask: see `encode_decode.encode_condition`."""
        return encode_decode.encode_condition(self.vae, vae, image, mask, key)

    def decode(
        self, vae: Any, latents: Float[Array, "b n c"], size: Size
    ) -> Float32[Array, "b h w 3"]:
        """Images of clean latents: see `encode_decode.decode_latents`."""
        return encode_decode.decode_latents(self.vae, vae, latents, size)

    def finish(
        self,
        vae: Any,
        latents: Float[Array, "b n c"],
        source: Float[Array, "b h w 3"],
        mask: Float[Array, "b h w 1"],
    ) -> Float32[Array, "b h w 3"]:
        """Decodes latents to finished images, clipped to [-1, 1], optionally pasted back.

        Args:
          vae: parameters of the autoencoder.
          latents: clean latents x_0.
          source: in [-1, 1].
          mask: 1 = edited.
        """
        pictures = jnp.clip(self.decode(vae, latents, source.shape[1:3]), -1.0, 1.0)
        return jnp.where(mask > 0.5, pictures, source) if self.paste_back else pictures

    def noise(self, key: PRNGKeyArray, batch: int, size: Size) -> Float32[Array, "b n c"]:
        """Latents at σ = 1: standard normal ε."""
        shape = (batch, self.token_count(size), self.latent_channels)
        return jax.random.normal(key, shape, jnp.float32)

    def start_from_source(
        self,
        vae: Any,
        source: Float[Array, "b h w 3"],
        noise: Float[Array, "b n c"],
        sigma: Sigma,
    ) -> Float32[Array, "b n c"]:
        """Initial latents for strength < 1: (1 - σ) z_src + σ ε with σ = `sigmas(...)[0]`.

        The whole source is encoded, including the masked area, as in diffusers.
        """
        return add_noise(self.encode_image(vae, source), noise, sigma)

    def velocity(
        self,
        transformer: Any,
        latents: Float[Array, "b n c"],
        condition: Condition,
        embeds: PromptEmbeds,
        sigma: Scale,
        guidance_scale: Scale,
    ) -> Float32[Array, "b n c"]:
        """The predicted velocity ε - x_0 of one forward pass; always float32.

        Args:
          transformer: parameters.
          latents: x_σ.
          condition: from `encode_condition`.
          embeds: prompt embeddings.
          sigma: noise level in [0, 1].
          guidance_scale: embedded (distilled) guidance scale; ignored without `guidance_embeds`.
        """
        batch = latents.shape[0]
        embedded = self.transformer.config.guidance_embeds
        predicted = self.transformer.apply(
            variables(transformer),
            jnp.concatenate([latents, condition.tokens], axis=-1),
            jnp.asarray(embeds.prompt_embeds),
            jnp.asarray(embeds.pooled_prompt_embeds),
            _per_sample(sigma, batch),
            condition.ids,
            latent_packing.text_ids(embeds.prompt_embeds.shape[1]),
            _per_sample(guidance_scale, batch) if embedded else None,
        )
        return predicted.astype(jnp.float32)

    def guided_velocity(
        self,
        transformer: Any,
        condition: Condition,
        embeds: PromptEmbeds,
        negative_embeds: PromptEmbeds | None = None,
        *,
        guidance_scale: Scale = 1.0,
        true_cfg_scale: Scale = 1.0,
    ) -> VelocityFn:
        """(latents, sigma) -> velocity under true classifier-free guidance: see `sampler.guided`.

        Build it outside the sampling loop, call it inside. Differentiable.
        """
        return sampler.guided(
            functools.partial(self.velocity, transformer),
            condition,
            embeds,
            negative_embeds,
            guidance_scale=guidance_scale,
            true_cfg_scale=true_cfg_scale,
        )

    def denoise(
        self,
        transformer: Any,
        latents: Float[Array, "b n c"],
        condition: Condition,
        embeds: PromptEmbeds,
        negative_embeds: PromptEmbeds | None,
        sigmas: Grid,
        start: int | Int[Array, ""],
        stop: int | Int[Array, ""],
        *,
        guidance_scale: Scale = 1.0,
        true_cfg_scale: Scale = 1.0,
    ) -> Float32[Array, "b n c"]:
        """Guided steps from noise level sigmas[start] to sigmas[stop], without gradient.

        Args:
          transformer, condition, embeds: as in `velocity`.
          latents: at noise level sigmas[start].
          negative_embeds, guidance_scale, true_cfg_scale: as in `sampler.guided`.
          sigmas, start, stop: as in `sampler.denoise`; the bounds may be traced.
        """
        velocity = self.guided_velocity(
            jax.lax.stop_gradient(transformer),
            condition,
            embeds,
            negative_embeds,
            guidance_scale=guidance_scale,
            true_cfg_scale=true_cfg_scale,
        )
        return jax.lax.stop_gradient(
            sampler.denoise(velocity, latents, sigmas, start, stop, self.solver)
        )

    def trajectory(
        self,
        transformer: Any,
        latents: Float[Array, "b n c"],
        condition: Condition,
        embeds: PromptEmbeds,
        negative_embeds: PromptEmbeds | None,
        sigmas: Float32[Array, "points"],
        *,
        guidance_scale: Scale = 1.0,
        true_cfg_scale: Scale = 1.0,
    ) -> tuple[Float32[Array, "b n c"], Float32[Array, "steps b n c"]]:
        """`denoise` over the whole grid: (x_0, the latents before each step)."""
        velocity = self.guided_velocity(
            jax.lax.stop_gradient(transformer),
            condition,
            embeds,
            negative_embeds,
            guidance_scale=guidance_scale,
            true_cfg_scale=true_cfg_scale,
        )
        return jax.lax.stop_gradient(sampler.trajectory(velocity, latents, sigmas, self.solver))


def _per_sample(value: Scale, batch: int) -> Float32[Array, "b"]:
    return jnp.broadcast_to(jnp.asarray(value, jnp.float32), (batch,))
