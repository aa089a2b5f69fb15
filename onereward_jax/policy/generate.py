"""Whole edits in one jitted call: encode, sample from noise to image, decode."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, Int, UInt8

from onereward_jax.data.aspect_buckets import Size
from onereward_jax.parallel import MeshFunction, batch_sharding, mesh_jit
from onereward_jax.policy.fill_policy import FillPolicy, PolicyParams
from onereward_jax.policy.model_inputs import PromptEmbeds


class EditBatch(NamedTuple):
    """What to edit, and how. Settings may differ from sample to sample.

    Attributes:
      image: source in [-1, 1].
      mask: 1 = edit here.
      embeds, negative_embeds: of the prompt and the negative prompt.
      sigmas: noise levels, from `noise_schedule.sigma_table`; the first one below 1 starts from the
        source image with that much noise.
      guidance_scale: embedded.
      true_cfg_scale: of classifier-free guidance.
      noise_seed: decides the initial noise, whatever else is in the batch.
    """

    image: Float[Array | np.ndarray, "b h w 3"]
    mask: Float[Array | np.ndarray, "b h w 1"]
    embeds: PromptEmbeds
    negative_embeds: PromptEmbeds
    sigmas: Float32[Array | np.ndarray, "b points"]
    guidance_scale: Float32[Array | np.ndarray, "b"]
    true_cfg_scale: Float32[Array | np.ndarray, "b"]
    noise_seed: Int[Array | np.ndarray, "b"]


def make_generate(
    editor: FillPolicy, size: Size, mesh: Mesh, *, guided: bool = True
) -> MeshFunction:
    """The jitted function (params, batch, steps) -> pictures uint8 [b, h, w, 3].

    `steps` and `guided` are as in `edited`: one compiled function serves all numbers of steps that
    `batch.sigmas` has room for.
    """

    def generate(
        params: PolicyParams, batch: EditBatch, steps: Int[Array, ""]
    ) -> UInt8[Array, "b h w 3"]:
        return to_pixels(edited(editor, size, params, batch, steps, guided=guided))

    samples = batch_sharding(mesh)
    return mesh_jit(generate, mesh, in_shardings=(None, samples, None), out_shardings=samples)


def edited(
    editor: FillPolicy,
    size: Size,
    params: PolicyParams,
    batch: EditBatch,
    steps: Int[Array, ""],
    *,
    guided: bool = True,
) -> Float32[Array, "b h w 3"]:
    """Finished edits in [-1, 1].

    Args:
      editor, params: who makes them.
      size: height and width.
      batch: what to make.
      steps: traced, at least the longest grid of the batch.
      guided: False where all of `batch.true_cfg_scale` are 1: half of the transformer's work.
    """
    condition = editor.encode_condition(params.vae, batch.image, batch.mask)
    noise = seeded_noise(editor, batch.noise_seed, size)
    sigma = batch.sigmas[:, 0]
    latents = editor.denoise(
        params.transformer,
        editor.start_from_source(params.vae, batch.image, noise, sigma),
        condition,
        batch.embeds,
        batch.negative_embeds,
        batch.sigmas,
        0,
        steps,
        guidance_scale=batch.guidance_scale,
        true_cfg_scale=batch.true_cfg_scale if guided else 1.0,
    )
    return editor.finish(params.vae, latents, batch.image, batch.mask)


def to_pixels(images: Float32[Array, "b h w 3"]) -> UInt8[Array, "b h w 3"]:
    """[-1, 1] to 0 ... 255, rounded: a quarter of the bytes to be fetched from the devices."""
    return jnp.clip(jnp.rint((images + 1.0) * 127.5), 0, 255).astype(jnp.uint8)


def seeded_noise(
    editor: FillPolicy, seeds: Int[Array | np.ndarray, "b"], size: Size
) -> Float32[Array, "b n c"]:
    """Initial noise of each sample from its own seed."""
    draw = jax.vmap(lambda seed: editor.noise(jax.random.key(seed), 1, size)[0])
    return draw(jnp.asarray(seeds, jnp.uint32))
