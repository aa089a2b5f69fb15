"""The editor for inference: images, masks and prompts in, images out.

Original: diffusers' `FluxFillPipeline.__call__`, with true classifier-free guidance as in the
authors' released pipeline. From the same initial latents the result is the same, with one
difference: it uses the mean of the VAE's posterior instead of sampling (see
`policy.encode_decode.encode_image`), so a seed only determines the initial noise.

Single letters: b batch, n image tokens, c channels of a latent token, h, w image height and width.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.sharding import Mesh
from jaxtyping import Array, Float32
from PIL import Image

from onereward_jax import policy
from onereward_jax.convert import (
    check_fill_pipeline,
    is_adapter,
    resolve_adapter,
    resolve_folder,
    resolve_weights,
)
from onereward_jax.data.aspect_buckets import Size
from onereward_jax.inference.batch_arguments import (
    Number,
    Pictures,
    Texts,
    as_integer,
    as_number,
    as_pictures,
    as_texts,
    same_length,
)
from onereward_jax.inference.batch_padding import dtype_or_default, pad_batch
from onereward_jax.inference.edit_defaults import EditDefaults, check_solver, read_edit_defaults
from onereward_jax.inference.edit_steps import make_steps
from onereward_jax.inference.picture_io import (
    check_shapes,
    editing_size,
    image_pixels,
    mask_pixels,
    to_pictures,
    to_unit,
)
from onereward_jax.inference.seeds import seed_numbers, seed_parts
from onereward_jax.models.lora_merge import merge_adapters
from onereward_jax.parallel import batch_sharding, make_mesh
from onereward_jax.pictures import PictureSource, mask_warning, read_picture, stored_size
from onereward_jax.policy.latent_packing import PATCH
from onereward_jax.policy.lora_adapters import load_adapters
from onereward_jax.policy.text_encoders import TextEncoder, TextParams, make_embed

OUTPUT_TYPES = ("pil", "np", "latent")
LONGEST_PROMPT = 512
"""T5 tokens of a prompt in FLUX; a smaller limit of the tokenizer takes precedence."""

OnStep = Callable[[int, Float32[Array, "b n c"]], None]
"""(index of the step, latents after the step)."""


class Editor:
    """An editor with its weights; the pure functions are in `policy.FillPolicy`.

    Attributes:
      functions: the static part.
      params: the weights.
      mesh: mesh of the weights.
      steps: the jitted functions.
      defaults: default arguments of a call.
    """

    def __init__(
        self,
        functions: policy.FillPolicy,
        params: policy.PolicyParams,
        encoder: TextEncoder,
        text_params: TextParams,
        mesh: Mesh,
        defaults: EditDefaults | None = None,
    ) -> None:
        """From loaded parts; `from_pretrained` loads them."""
        self.functions = functions
        self.params = params
        self.mesh = mesh
        self.defaults = defaults or EditDefaults()
        self.steps = make_steps(functions, mesh)
        self._tokenize = encoder.tokenize
        self._embed = functools.partial(make_embed(encoder, mesh), text_params)
        # Edits of a folder repeat the negative prompt and the fixed prompts.
        self._prompt_embeds = functools.lru_cache(maxsize=64)(self._embed_one)

    @classmethod
    def from_pretrained(
        cls,
        path: str | os.PathLike[str],
        *,
        transformer: str | os.PathLike[str] | None = None,
        adapters: Sequence[tuple[str | os.PathLike[str], float]] = (),
        mesh: Mesh | None = None,
        dtype: Any = None,
        max_sequence_length: int | None = None,
    ) -> Editor:
        """Loads an editor from a folder in the layout of FluxFillPipeline.

        Args:
          path: the folder (see `convert.resolve_folder`), or "mini/models/editor" for the package's
            mini editor.
          transformer: folder or single file of a transformer to use instead of the editor's own,
            e.g. OneReward's, `rl/ema` of a run, or ComfyUI's file of a fill model.
          adapters: pairs (LoRA file or folder, weight), merged into the kernels.
          mesh: mesh of weights and samples; None: all devices on the axis `fsdp`.
          dtype: dtype of weights and computation, bfloat16 or float32; the VAE is always float32.
            None: float32 on CPU, bfloat16 elsewhere.
          max_sequence_length: T5 tokens per prompt; None: the tokenizer's limit, at most 512 as in
            FLUX.

        Raises:
          FileNotFoundError, ValueError: as `convert.resolve_folder`, `policy.load_policy` and
            `policy.load_text_encoder`; or an adapter does not fit or is given as `transformer`.
        """
        folder = resolve_folder(path, "model")
        check_fill_pipeline(folder)
        defaults = read_edit_defaults(folder)
        if transformer is not None:
            transformer = resolve_weights(transformer, "transformer")
            if is_adapter(transformer):
                raise ValueError(f"transformer: {transformer} is a LoRA: pass it as --lora")
        loras = [(resolve_adapter(source, "lora"), weight) for source, weight in adapters]
        mesh = make_mesh() if mesh is None else mesh
        kinds = dict.fromkeys(("dtype", "param_dtype"), dtype_or_default(dtype))
        if loras:  # first, to fail early, before loading the weights
            static = policy.read_policy(folder, transformer=transformer, **kinds)
            loaded = load_adapters(loras, static, mesh)
        encoder, text_params = policy.load_text_encoder(folder, mesh, **kinds)
        length = max_sequence_length or min(encoder.tokenizers.t5.model_max_length, LONGEST_PROMPT)
        encoder = dataclasses.replace(encoder, max_sequence_length=length)
        functions, params = policy.load_policy(folder, mesh, transformer=transformer, **kinds)
        if loras:
            merged = merge_adapters(params.transformer, loaded, mesh)
            params = params._replace(transformer=merged)
        return cls(functions, params, encoder, text_params, mesh, defaults)

    @property
    def multiple(self) -> int:
        """Pixels per side of a token: sides of edited images are multiples of it."""
        return self.functions.vae.config.scale_factor * PATCH

    def __call__(
        self,
        image: Pictures,
        mask: Pictures,
        prompt: Texts,
        negative_prompt: Texts = "nsfw",
        *,
        true_cfg_scale: Number | None = None,
        guidance_scale: Number | None = None,
        num_inference_steps: Number | None = None,
        solver: str | None = None,
        strength: Number = 1.0,
        height: Number | None = None,
        width: Number | None = None,
        latents: Float32[np.ndarray | Array, "b n c"] | None = None,
        seed: Number | Sequence[Number] = 0,
        output_type: str = "pil",
        on_step: OnStep | None = None,
    ) -> list[Image.Image] | Float32[np.ndarray, "..."]:
        """Edits an image, or a batch of images of one size.

        Each of `image`, `mask`, `prompt`, `negative_prompt` is one value for all samples, or one
        per sample. `true_cfg_scale`, `guidance_scale`, `num_inference_steps` and `solver` default
        to `defaults`: 4, 1, 50 and "euler" unless the editor's folder states others.

        Args:
          image: paths, bytes of files, opened images of any mode, or arrays [h, w, 3] or
            [b, h, w, 3], uint8 or floats in [0, 1].
          mask: the same; white = edit here; resized to the size of the image.
          prompt: the prompt.
          negative_prompt: the negative prompt.
          true_cfg_scale: s of v = v_neg + s (v_pos - v_neg); 1: none, at half the cost.
          guidance_scale: embedded (distilled) guidance of FLUX; ignored by models without it.
          num_inference_steps: steps of the full grid.
          solver: "euler" as in diffusers, or "ab2", of second order, see `policy.sampler`.
          strength: in (0, 1]; below 1, the first (1 - strength) of the grid is dropped, and
            sampling starts from the noised source.
          height, width: size of the result in pixels; None: that of the image. Rounded down to
            multiples of `multiple` (16 for FLUX).
          latents: packed initial latents [b, n, c]; None: drawn from `seed`.
          seed: noise seed of each sample, up to 64 bits (see `seeds`); a single number s means
            s, s + 1, ... along the batch.
          output_type: "pil", "np" or "latent".
          on_step: called after every step.

        Returns:
          Always a batch: a list of images, an array [b, h, w, 3] in [0, 1], or the final packed
          latents [b, n, c].

        Raises:
          FileNotFoundError: a path does not exist.
          ValueError: an image is unreadable, a mask is empty or has another aspect ratio, images
            differ in size, an argument is out of range or of another type, or the weights give
            numbers that are not finite.
        """
        if output_type not in OUTPUT_TYPES:
            raise ValueError(f"output_type {output_type!r} is not one of {', '.join(OUTPUT_TYPES)}")
        images, masks, prompts, negatives = same_length(
            image=as_pictures(image, "image"),
            mask=as_pictures(mask, "mask"),
            prompt=as_texts(prompt, "prompt"),
            negative_prompt=as_texts(negative_prompt, "negative_prompt"),
        )
        batch = len(images)
        seeds = seed_parts(seed_numbers(seed, batch))
        stated = self.defaults
        num_inference_steps = _given(
            num_inference_steps, stated.num_inference_steps, "num_inference_steps", as_integer
        )
        true_cfg_scale = _given(true_cfg_scale, stated.true_cfg_scale, "true_cfg_scale", as_number)
        guidance_scale = _given(guidance_scale, stated.guidance_scale, "guidance_scale", as_number)
        solver = stated.solver if solver is None else solver
        check_solver(solver)
        strength = as_number(strength, "strength")
        height = _given(height, None, "height", as_integer)
        width = _given(width, None, "width", as_integer)
        size, pixels, edited = self._pixels(images, masks, height, width)
        sigmas = self.functions.sigmas(num_inference_steps, size, strength)
        self._check_latents(latents, batch, size)

        steps, vae = self.steps, self.params.vae
        pixels, edited = map(self._place, (pixels, edited))
        seeds = jax.tree.map(self._place, seeds)
        condition = steps.condition(vae, pixels, edited)
        embeds = self._embeds(prompts)
        negative_embeds = None if true_cfg_scale == 1.0 else self._embeds(negatives)
        if latents is not None:
            current = self._place(np.asarray(latents, np.float32))
        elif sigmas[0] < 1.0:
            current = steps.start(vae, pixels, seeds, sigmas[0])
        else:
            current = steps.noise(seeds, size)
        scales = np.float32(guidance_scale), np.float32(true_cfg_scale)
        last = None
        for index, (sigma, following) in enumerate(zip(sigmas, sigmas[1:])):
            current, velocity = steps.step(
                self.params.transformer, current, condition, embeds, negative_embeds, last,
                sigma, following, *scales,
            )  # fmt: skip
            last = (velocity, sigma) if solver == "ab2" else None
            if on_step is not None:
                on_step(index, current[:batch])
        if output_type == "latent":
            return np.asarray(current)[:batch]
        decoded = np.asarray(steps.decode(vae, current, size))[:batch]
        if not np.isfinite(decoded).all():
            raise ValueError(
                "the edit has values that are not finite: weights or adapters are damaged or do "
                "not belong to this model, or a scale is too large"
            )
        decoded = to_unit(decoded)
        return decoded if output_type == "np" else to_pictures(decoded)

    def _pixels(
        self,
        images: Sequence[PictureSource],
        masks: Sequence[PictureSource],
        height: int | None,
        width: int | None,
    ) -> tuple[Size, Float32[np.ndarray, "b h w 3"], Float32[np.ndarray, "b h w 1"]]:
        """The common size, sources in [-1, 1], and masks."""
        pictures = [read_picture(image) for image in images]
        sizes = {editing_size(picture.size, height, width, self.multiple) for picture in pictures}
        if len(sizes) > 1:
            listed = " and ".join("{}x{}".format(*size[::-1]) for size in sorted(sizes))
            raise ValueError(
                f"the images of a batch have different sizes, {listed} pixels: set height and "
                "width, or edit them one by one"
            )
        for picture, mask in zip(pictures, masks):
            check_shapes(picture.size, stored_size(mask))
        size = sizes.pop()
        edited = np.stack([mask_pixels(mask, size) for mask in masks])
        for whites in edited:
            if warning := mask_warning(Image.fromarray(whites[..., 0] > 0).convert("L")):
                logging.warning("%s", warning)
        return size, np.stack([image_pixels(picture, size) for picture in pictures]), edited

    def _check_latents(self, latents: Any, batch: int, size: Size) -> None:
        expected = (batch, self.functions.token_count(size), self.functions.latent_channels)
        if latents is not None and latents.shape != expected:
            raise ValueError(
                f"latents have shape {latents.shape}: {expected} expected, the packed tokens of "
                f"{batch} images of {size[1]}x{size[0]} pixels"
            )

    def _embeds(self, prompts: Sequence[str]) -> policy.PromptEmbeds:
        rows = [self._prompt_embeds(prompt) for prompt in prompts]
        return policy.PromptEmbeds(
            *(self._place(np.stack(part)) for part in zip(*rows, strict=True))
        )

    def _embed_one(self, prompt: str) -> policy.PromptEmbeds:
        ids = self._tokenize([prompt])
        # The batch must be a multiple of the number of devices.
        whole = self._embed(jax.tree.map(lambda row: np.repeat(row, self.mesh.size, 0), ids))
        return policy.PromptEmbeds(*(np.asarray(part)[0] for part in whole))

    def _place(self, samples: np.ndarray) -> jax.Array:
        """Pads samples to the mesh and transfers them."""
        return jax.device_put(pad_batch(samples, self.mesh), batch_sharding(self.mesh))


def _given(value: Any, default: Any, name: str, read: Callable[[Any, str], Any]) -> Any:
    """An argument, read by `read`; None: the default."""
    return default if value is None else read(value, name)
