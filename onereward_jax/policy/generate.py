"""A full edit in one jitted call: encode, sample from noise to image, decode."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, Int, UInt8, UInt32

from onereward_jax.common.pixels import to_uint8
from onereward_jax.data.aspect_buckets import Size
from onereward_jax.parallel import MeshFunction, batch_sharding, mesh_jit
from onereward_jax.policy.fill_policy import FillPolicy, PolicyParams
from onereward_jax.policy.model_inputs import PromptEmbeds


class EditBatch(NamedTuple):
    """Inputs and per-sample settings of a batch of edits.

    Attributes:
      image: source in [-1, 1].
      mask: 1 = edit here.
      embeds, negative_embeds: embeddings of the prompt and the negative prompt.
      sigmas: noise levels, from `noise_schedule.sigma_table`; if the first is below 1, sampling
        starts from the source image with that noise level.
      guidance_scale: embedded (distilled) guidance scale.
      true_cfg_scale: scale of classifier-free guidance.
      noise_seed: seed of the initial noise, independent of the rest of the batch.
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
    """The jitted function (params, batch, steps) -> images uint8 [b, h, w, 3].

    `steps` and `guided` are as in `edited`. One compiled function handles every number of steps up
    to the width of `batch.sigmas`.
    """

    def generate(
        params: PolicyParams, batch: EditBatch, steps: Int[Array, ""]
    ) -> UInt8[Array, "b h w 3"]:
        # bytes: a quarter of what float32 would have to be fetched from the devices
        return to_uint8(edited(editor, size, params, batch, steps, guided=guided))

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
      editor, params: the editor and its weights.
      size: height and width in pixels.
      batch: inputs and settings.
      steps: number of sampling steps, traced; at least that of the longest grid in the batch.
      guided: False if all of `batch.true_cfg_scale` are 1: halves the transformer's work.
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


def seeded_noise(
    editor: FillPolicy,
    seeds: Int[Array | np.ndarray, "b"],
    size: Size,
    high: UInt32[Array | np.ndarray, "b"] | None = None,
) -> Float32[Array, "b n c"]:
    """Initial noise, with one seed per sample.

    Args:
      editor: the static part.
      seeds: 32 bits each.
      size: height and width of the images.
      high: 32 more bits each, folded into the keys where they are not 0; None for none.
    """
    low = jnp.asarray(seeds, jnp.uint32)
    if high is None:
        return jax.vmap(lambda seed: editor.noise(jax.random.key(seed), 1, size)[0])(low)

    def draw(low: UInt32[Array, ""], high: UInt32[Array, ""]) -> Float32[Array, "n c"]:
        key = jax.random.key(low)
        key = jnp.where(high == 0, key, jax.random.fold_in(key, high))
        return editor.noise(key, 1, size)[0]

    return jax.vmap(draw)(low, jnp.asarray(high, jnp.uint32))
