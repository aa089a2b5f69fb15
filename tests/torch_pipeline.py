"""A FluxFillPipeline of small random components, and a run of it under true guidance."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxFillPipeline,
    FluxTransformer2DModel,
)

from onereward_jax.mini.mini_tokenizers import clip_tokenizer, t5_tokenizer

WORDS = (
    "a red apple on the table",
    "a small green frog beside the big blue vase",
    "high-definition, perfect composition",
    "remove",
    "nsfw",
)
T5_LENGTH, CLIP_LENGTH, WIDTH = 14, 24, 16


class TrueGuidance(torch.nn.Module):
    """The pipeline's transformer under true guidance, in the released batch order."""

    def __init__(self, inner: torch.nn.Module, negative: Sequence[Any], scale: float) -> None:
        super().__init__()
        self.inner, self.config = inner, inner.config
        self.dtype, self.device = inner.dtype, inner.device
        self.negative = [torch.as_tensor(part) for part in negative]
        self.scale = scale

    def forward(
        self, hidden_states, timestep, guidance, pooled_projections, encoder_hidden_states,
        **rest,
    ):  # fmt: skip
        both = self.inner(
            hidden_states=torch.cat([hidden_states] * 2),
            timestep=torch.cat([timestep] * 2),
            guidance=None if guidance is None else torch.cat([guidance] * 2),
            pooled_projections=torch.cat([self.negative[1], pooled_projections]),
            encoder_hidden_states=torch.cat([self.negative[0], encoder_hidden_states]),
            **rest,
        )[0]
        negative, positive = both.chunk(2)
        return (negative + self.scale * (positive - negative),)


def random_vae(channels: tuple[int, ...]) -> AutoencoderKL:
    """One level for each number of channels; its posterior has no spread."""
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        scaling_factor=0.36,
        shift_factor=0.12,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    with torch.no_grad():
        # The pipeline samples from the posterior, we take its mean: make the two the same.
        vae.encoder.conv_out.weight[4:] = 0
        vae.encoder.conv_out.bias[4:] = -30
    return vae.eval()


def random_transformer(
    mask_channels: int, joint: int, pooled: int, guidance_embeds: bool
) -> FluxTransformer2DModel:
    """One block of each kind; `mask_channels` are the pixels of a token."""
    transformer = FluxTransformer2DModel(
        in_channels=16 + 16 + mask_channels,
        out_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=joint,
        pooled_projection_dim=pooled,
        guidance_embeds=guidance_embeds,
        axes_dims_rope=(2, 2, 4),
    )
    with torch.no_grad():
        for parameter in transformer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return transformer.eval()


def random_text_encoders(
    words: Sequence[str], clip_length: int, layers: int, **t5_options: int
) -> dict[str, Any]:
    """CLIP, T5 and their tokenizers, which know some words, as the pipeline calls them."""
    tokenizer = clip_tokenizer(words, max_length=clip_length)
    tokenizer_2 = t5_tokenizer(words, **t5_options)
    clip = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=24,
            num_hidden_layers=layers,
            num_attention_heads=2,
            max_position_embeddings=clip_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
    )
    t5 = transformers.T5EncoderModel(
        transformers.T5Config(
            vocab_size=len(tokenizer_2),
            d_model=WIDTH,
            d_kv=4,
            d_ff=24,
            num_layers=layers,
            num_heads=4,
            feed_forward_proj="gated-gelu",
        )  # fmt: skip
    )
    models = {"text_encoder": clip.eval(), "text_encoder_2": t5.eval()}
    return {**models, "tokenizer": tokenizer, "tokenizer_2": tokenizer_2}


def whole_pipeline(guidance_embeds: bool) -> FluxFillPipeline:
    """With text encoders and tokenizers, and FLUX's 16 pixels to a token."""
    torch.manual_seed(2)
    vae = random_vae((8,) * 4)
    with torch.no_grad():
        # A fresh decoder paints grey; this one uses the range of a picture and goes beyond it.
        vae.decoder.conv_out.weight *= 4
    pipeline = FluxFillPipeline(
        vae=vae,
        transformer=random_transformer(256, WIDTH, WIDTH, guidance_embeds),
        **random_text_encoders(WORDS, CLIP_LENGTH, 1, max_length=T5_LENGTH),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


class Reference(NamedTuple):
    """What came of a run.

    Attributes:
      condition: tokens [b, n, k] of masked image and mask.
      steps: latents after each step.
      images: "np" in [0, 1], or "pil".
      sigmas: noise levels from the first step's to 0.
    """

    condition: np.ndarray
    steps: list[np.ndarray]
    images: Any
    sigmas: np.ndarray


def run_guided(
    pipeline: FluxFillPipeline, negative_prompt: list[str], true_cfg_scale: float, **arguments: Any
) -> Reference:
    """The pipeline's own call from given packed latents, under true guidance unless scale is 1."""
    steps, inputs = [], []

    def keep(pipeline, index, timestep, values):
        steps.append(values["latents"].numpy())
        return values

    def look(module, positional, named):
        inputs.append(named["hidden_states"])

    latents = torch.from_numpy(np.array(arguments.pop("latents")))
    with torch.no_grad():
        negative = pipeline.encode_prompt(negative_prompt, max_sequence_length=T5_LENGTH)[:2]
    with guidance(pipeline, negative, true_cfg_scale):
        hook = pipeline.transformer.register_forward_pre_hook(look, with_kwargs=True)
        images = pipeline(
            latents=latents,
            max_sequence_length=T5_LENGTH,
            callback_on_step_end=keep,
            **arguments,
        ).images
        hook.remove()
    return Reference(
        condition=inputs[0][..., latents.shape[-1] :].numpy(),
        steps=steps,
        images=images,
        sigmas=pipeline.scheduler.sigmas[-len(steps) - 1 :].numpy(),
    )


@contextlib.contextmanager
def guidance(pipeline: FluxFillPipeline, negative: Sequence[Any], scale: float) -> Iterator[None]:
    """The pipeline's transformer under true guidance for a while; as it is for scale 1."""
    plain = pipeline.transformer
    if scale != 1.0:
        pipeline.transformer = TrueGuidance(plain, negative, scale)
    try:
        yield
    finally:
        pipeline.transformer = plain
