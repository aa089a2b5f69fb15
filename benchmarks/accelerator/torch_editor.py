"""The editor of diffusers in torch at the published sizes, with random weights: the comparison.

    python benchmarks/accelerator/torch_editor.py --out=results

FLUX.1-Fill's transformer in bfloat16: seconds of a forward pass with one and two samples, then of
an edit by `FluxFillPipeline` (28 steps, one forward each), in eager mode and compiled
(`compile_repeated_blocks`, which compiles each kind of block once).
"""

from __future__ import annotations

import json
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from results import Results

PACKAGE = pathlib.Path(__file__).parents[2] / "onereward_jax"
REPEATS, STEPS = 5, 28


def main() -> None:
    """Writes the lines of the part."""
    results = Results("torch_editor", __doc__)
    import diffusers

    device = "cuda" if torch.cuda.is_available() else "cpu"
    card = torch.cuda.get_device_name() if device == "cuda" else device
    versions = {"torch": torch.__version__, "diffusers": diffusers.__version__}
    results.add("start", card=card, **versions)
    folder = PACKAGE / (
        "mini/models/editor" if results.tiny else "published_configs/FLUX.1-Fill-dev"
    )
    side, text_length = (64, 12) if results.tiny else (1024, 512)
    # Weights are drawn on the device, in the dtype in which they are used.
    torch.set_default_dtype(torch.bfloat16)
    torch.set_grad_enabled(False)
    start = time.perf_counter()
    with torch.device(device):
        transformer = diffusers.FluxTransformer2DModel(**sizes_in(folder / "transformer")).eval()
        vae = diffusers.AutoencoderKL(**with_blocks(sizes_in(folder / "vae"))).eval()
    results.add("weights", seconds=time.perf_counter() - start)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler")
    modules = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    pipeline = diffusers.FluxFillPipeline(
        scheduler=scheduler, vae=vae, transformer=transformer, **modules
    )
    pipeline.set_progress_bar_config(disable=True)

    def edit() -> Any:
        embeds = inputs_of(transformer.config, 1, side, text_length, device)
        return pipeline(
            image=torch.rand(1, 3, side, side, dtype=torch.float32),
            mask_image=torch.ones(1, 1, side, side, dtype=torch.float32),
            prompt_embeds=embeds["encoder_hidden_states"],
            pooled_prompt_embeds=embeds["pooled_projections"],
            height=side,
            width=side,
            num_inference_steps=STEPS,
            output_type="pt",
        ).images

    for mode in ("eager", "compiled"):
        if mode == "compiled":
            transformer.compile_repeated_blocks(fullgraph=True)
        for samples in (1, 2):
            if results.left() < 60:
                return
            inputs = inputs_of(transformer.config, samples, side, text_length, device)
            first, seconds = timed(lambda: transformer(**inputs))  # noqa: B023
            results.add("forward", mode=mode, samples=samples, first=first, seconds=seconds)
            if samples == 1:
                edit_first, edit_seconds = timed(edit, repeats=1)
                results.add(
                    "edit", mode=mode, num_steps=STEPS, first=edit_first, seconds=edit_seconds
                )
    results.add("complete", **peak_memory(device))


def sizes_in(folder: pathlib.Path) -> dict[str, Any]:
    """Arguments of a model's class, from its config file."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return {name: value for name, value in config.items() if not name.startswith("_")}


def with_blocks(sizes: dict[str, Any]) -> dict[str, Any]:
    """The sizes with one block per level: without their names, diffusers makes a single level."""
    levels = len(sizes["block_out_channels"])
    blocks = {
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
    }
    return blocks | sizes


def inputs_of(
    config: Any, samples: int, side: int, text_length: int, device: str
) -> dict[str, Any]:
    """Random arguments of the transformer."""
    rows, zero = torch.arange(side // 16), torch.zeros(1, dtype=torch.int64)
    inputs = {
        "hidden_states": torch.randn(samples, len(rows) ** 2, config.in_channels),
        "encoder_hidden_states": torch.randn(samples, text_length, config.joint_attention_dim),
        "pooled_projections": torch.randn(samples, config.pooled_projection_dim),
        "timestep": torch.full((samples,), 0.5),
        "guidance": torch.ones(samples),
        "img_ids": torch.cartesian_prod(zero, rows, rows).to(torch.bfloat16),
        "txt_ids": torch.zeros(text_length, 3),
    }
    return {name: value.to(device) for name, value in inputs.items()}


def timed(function: Callable[[], Any], repeats: int = REPEATS) -> tuple[float, float]:
    """Seconds of the first call, which may compile, and the median of later ones."""
    times = []
    for _ in range(1 + repeats):
        start = time.perf_counter()
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return times[0], statistics.median(times[1:])


def peak_memory(device: str) -> dict[str, int]:
    """The most bytes that torch had allocated."""
    return {"peak": torch.cuda.max_memory_allocated()} if device == "cuda" else {}


if __name__ == "__main__":
    main()
