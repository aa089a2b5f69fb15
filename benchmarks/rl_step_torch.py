"""The baseline of rl_step.py: the same step in eager torch, without optimisations.

    python benchmarks/rl_step_torch.py [--repeats 10] [--device cuda]

diffusers' and transformers' own classes read the mini models; 8 pictures of 64x64, 20 reference and
15 policy steps with classifier-free guidance, judged in 4 dimensions and in 1, with a full query
per dimension. Needs the extra test. Inputs are random, because only time is measured.
"""

from __future__ import annotations

import argparse
import copy
import importlib.resources
import time

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from torch import Tensor, nn
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from onereward_jax.mini.pretrain.starting_judge import PIXELS, SUFFIX_TOKENS
from onereward_jax.reward import ImageProcessor, QueryTokenizer
from onereward_jax.tasks import DIMENSIONS, MAX_DIMENSIONS, Task

SIDE, BATCH, REFERENCE_STEPS, POLICY_STEPS, PROMPT_TOKENS = 64, 8, 20, 15, 12
SCALE, UPPER_BOUND, EMA_DECAY = 2.0, 0.95, 0.98


class Editor:
    """A policy or a reference over its condition, under classifier-free guidance."""

    def __init__(self, transformer: nn.Module, tokens: Tensor) -> None:
        self.transformer, self.tokens = transformer, tokens
        config, batch = transformer.config, 2 * BATCH
        self.prompt = torch.randn(batch, PROMPT_TOKENS, config.joint_attention_dim)
        self.pooled = torch.randn(batch, config.pooled_projection_dim)
        rows = torch.arange(SIDE // 16, dtype=torch.float32)
        grid = torch.stack(torch.meshgrid(rows, rows, indexing="ij"), -1).reshape(-1, 2)
        self.image_ids = torch.cat([torch.zeros(len(grid), 1), grid], 1)

    def velocity(self, latents: Tensor, sigma: float) -> Tensor:
        """Of both branches in one forward."""
        both = self.transformer(
            hidden_states=torch.cat([torch.cat([latents, self.tokens], -1)] * 2),
            encoder_hidden_states=self.prompt,
            pooled_projections=self.pooled,
            timestep=torch.full((2 * BATCH,), sigma),
            guidance=torch.ones(2 * BATCH),
            img_ids=self.image_ids,
            txt_ids=torch.zeros(PROMPT_TOKENS, 3),
        ).sample
        negative, positive = both.chunk(2)
        return negative + SCALE * (positive - negative)

    @torch.no_grad()
    def denoise(self, latents: Tensor, steps: int) -> Tensor:
        """Euler steps from pure noise."""
        for index in range(steps):
            velocity = self.velocity(latents, 1.0 - index / REFERENCE_STEPS)
            latents = latents - velocity / REFERENCE_STEPS
        return latents


def pack(latents: Tensor) -> Tensor:
    """[b, c, h, w] -> [b, h/2 w/2, 4c], FLUX's tokens."""
    batch, channels, height, width = latents.shape
    cut = latents.reshape(batch, channels, height // 2, 2, width // 2, 2)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(batch, height * width // 4, 4 * channels)


def unpack(tokens: Tensor) -> Tensor:
    """The inverse of `pack`, for square pictures."""
    batch, count, channels = tokens.shape
    side = int(count**0.5)
    cut = tokens.reshape(batch, side, side, channels // 4, 2, 2)
    return cut.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels // 4, 2 * side, 2 * side)


def patches(images: Tensor, processor: ImageProcessor) -> Tensor:
    """[n, 3, h, w] in [-1, 1] -> Qwen's patches of the resized, normalised pictures."""
    side, patch, merge = int(PIXELS**0.5), processor.patch_size, processor.merge_size
    resized = nn.functional.interpolate(images / 2 + 0.5, (side, side), mode="bicubic")
    mean, std = (
        torch.tensor(values)[:, None, None]
        for values in (processor.image_mean, processor.image_std)
    )
    blocks = side // patch // merge
    cut = ((resized - mean) / std).reshape(-1, 3, blocks, merge, patch, blocks, merge, patch)
    cut = cut.permute(0, 2, 5, 3, 6, 1, 4, 7).unsqueeze(6)
    cut = cut.expand(*cut.shape[:6], processor.temporal_patch_size, patch, patch)
    return cut.reshape(-1, 3 * processor.temporal_patch_size * patch * patch)


def main() -> None:
    """Prints the seconds of a step in 4 dimensions and in 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=10, help="timed steps; the median counts")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    arguments = parser.parse_args()
    repeats, device = arguments.repeats, torch.device(arguments.device)
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")  # TF32 on GPUs, as JAX's default
    folder = importlib.resources.files("onereward_jax") / "mini" / "models"
    vae = AutoencoderKL.from_pretrained(folder / "editor" / "vae").requires_grad_(False)
    policy = FluxTransformer2DModel.from_pretrained(folder / "editor" / "transformer")
    reference, average = (copy.deepcopy(policy).requires_grad_(False) for _ in range(2))
    judge = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder / "judge")
    judge.requires_grad_(False)
    for model in (vae, policy, reference, average, judge):
        model.to(device)
    torch.set_default_device(device)
    processor = ImageProcessor(min_pixels=PIXELS, max_pixels=PIXELS)
    queries = QueryTokenizer(
        AutoTokenizer.from_pretrained(folder / "judge"),
        processor.tokens_per_image(SIDE, SIDE),
        SUFFIX_TOKENS,
    )
    image = torch.rand(BATCH, 3, SIDE, SIDE) * 2 - 1
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-5)

    def decode(tokens: Tensor) -> Tensor:
        latents = unpack(tokens) / vae.config.scaling_factor + vae.config.shift_factor
        return vae.decode(latents).sample.clamp(-1, 1)

    def step(dimensions: int) -> None:
        with torch.no_grad():
            encoded = vae.encode(image).latent_dist.mean - vae.config.shift_factor
            masked = pack(encoded * vae.config.scaling_factor)
            tokens = torch.cat([masked, torch.ones(BATCH, masked.shape[1], 256)], -1)
            noise = torch.randn(2, *masked.shape)
            x_ref = decode(Editor(reference, tokens).denoise(noise[0], REFERENCE_STEPS))
        editor = Editor(policy, tokens)
        latents = editor.denoise(noise[1], POLICY_STEPS)
        sigma = 1.0 - POLICY_STEPS / REFERENCE_STEPS
        x_theta = decode(latents - sigma * editor.velocity(latents, sigma))

        task = Task.FILL if dimensions == MAX_DIMENSIONS else Task.REMOVAL
        asked = queries.encode([task] * BATCH, ["a red apple"] * BATCH)
        hinges = []
        for dimension in range(len(DIMENSIONS[task])):
            length = asked.suffix_mask[0, dimension].sum()
            suffix = torch.as_tensor(asked.suffix[:, dimension, :length])
            prefix = torch.as_tensor(asked.prefix[:, asked.prefix[0] != queries.layout.pad_id])
            ids = torch.cat([prefix, suffix], 1).long()
            side = int(PIXELS**0.5) // processor.patch_size
            logits = judge(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                mm_token_type_ids=(ids == judge.config.image_token_id).int(),
                pixel_values=patches(torch.stack([x_theta, x_ref], 1).flatten(0, 1), processor),
                image_grid_thw=torch.tensor([[1, side, side]] * 2 * BATCH),
                logits_to_keep=1,
            ).logits[:, -1]
            yes = logits.softmax(-1)[:, queries.layout.yes_id]
            hinges.append((UPPER_BOUND - yes).relu())
        optimizer.zero_grad()
        torch.stack(hinges).mean().backward()
        nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            for kept, new in zip(average.parameters(), policy.parameters(), strict=True):
                kept.lerp_(new, 1 - EMA_DECAY)

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {device}")
    for dimensions in (MAX_DIMENSIONS, 1):
        step(dimensions)
        times = []
        for _ in range(repeats):
            wait()
            start = time.perf_counter()
            step(dimensions)
            wait()
            times.append(time.perf_counter() - start)
        median = sorted(times)[len(times) // 2]
        print(f"{dimensions} dimension(s): {median:.3f} s a step", flush=True)


if __name__ == "__main__":
    main()
