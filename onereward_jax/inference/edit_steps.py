"""An edit as separate jitted functions, for callbacks after each step: encode, start, step, decode.

`policy.generate` does the same in one jitted call, for batches with per-sample settings.

Single letters: b batch, n image tokens, c channels of a latent token, h, w image height and width.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32

from onereward_jax import policy
from onereward_jax.data.aspect_buckets import Size
from onereward_jax.inference.seeds import SeedParts
from onereward_jax.parallel import MeshFunction, batch_sharding, mesh_jit
from onereward_jax.policy.generate import seeded_noise


@dataclasses.dataclass(frozen=True)
class EditSteps:
    """Jitted functions of one editor; each compiles once per image size and batch size.

    Attributes:
      condition: (vae, image, mask) -> `policy.Condition`.
      noise: (seeds, size) -> latents at σ = 1.
      start: (vae, image, seeds, sigma) -> latents at σ < 1, from the source.
      step: (transformer, latents, condition, embeds, negative embeds or None, the last step, sigma,
        next sigma, guidance scale, true CFG scale) -> (latents, velocity); without negative embeds
        there is no true CFG, and a step costs half as much. The last step, its (velocity, sigma),
        makes it a step of "ab2"; None: Euler's, and the first of "ab2".
      decode: (vae, latents, size) -> images, approximately in [-1, 1].
    """

    condition: MeshFunction
    noise: MeshFunction
    start: MeshFunction
    step: MeshFunction
    decode: MeshFunction


def make_steps(editor: policy.FillPolicy, mesh: Mesh) -> EditSteps:
    """The jitted functions of `editor`, for samples sharded over `mesh`."""

    def noise(seeds: SeedParts, size: Size) -> Float32[Array, "b n c"]:
        return seeded_noise(editor, seeds.low, size, seeds.high)

    def start(
        vae: Any, image: Float[Array, "b h w 3"], seeds: SeedParts, sigma: Float32[Array, ""]
    ) -> Float32[Array, "b n c"]:
        return editor.start_from_source(vae, image, noise(seeds, image.shape[1:3]), sigma)

    def step(
        transformer: Any,
        latents: Float32[Array, "b n c"],
        condition: policy.Condition,
        embeds: policy.PromptEmbeds,
        negative_embeds: policy.PromptEmbeds | None,
        last: tuple[Float32[Array, "b n c"], Float32[Array, ""]] | None,
        sigma: Float32[Array, ""],
        sigma_next: Float32[Array, ""],
        guidance_scale: Float32[Array, ""],
        true_cfg_scale: Float32[Array, ""],
    ) -> tuple[Float32[Array, "b n c"], Float32[Array, "b n c"]]:
        velocity = editor.guided_velocity(
            transformer,
            condition,
            embeds,
            negative_embeds,
            guidance_scale=guidance_scale,
            true_cfg_scale=1.0 if negative_embeds is None else true_cfg_scale,
        )
        levels = jnp.broadcast_to(sigma, latents.shape[:1])
        found = velocity(latents, levels)
        if last is None:
            return policy.euler_step(latents, found, sigma, sigma_next), found
        return policy.ab2_step(latents, found, *last, sigma, sigma_next), found

    samples = batch_sharding(mesh)
    return EditSteps(
        # No out_shardings: its position ids have no batch axis.
        condition=mesh_jit(editor.encode_condition, mesh),
        noise=mesh_jit(noise, mesh, static_argnums=1, out_shardings=samples),
        start=mesh_jit(start, mesh, out_shardings=samples),
        step=mesh_jit(step, mesh, out_shardings=samples),
        decode=mesh_jit(editor.decode, mesh, static_argnums=2, out_shardings=samples),
    )
