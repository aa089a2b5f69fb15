"""How the exported editor is used: its `editing.json`, and the same call in diffusers."""

from __future__ import annotations

import dataclasses
from typing import Any

from onereward_jax.chain.base_models import made_by
from onereward_jax.chain.stage import StageContext
from onereward_jax.convert import EDITING, load_tokenizer
from onereward_jax.convert.hub import PACKAGE
from onereward_jax.convert.safetensors_reader import read_json
from onereward_jax.inference.edit_defaults import EditDefaults, stated_defaults
from onereward_jax.policy import read_policy
from onereward_jax.policy.latent_packing import PATCH
from onereward_jax.stages.guidance_settings import evaluate_guidance

LONGEST_PROMPT = 512
"""T5 tokens of FLUX, and of a tokenizer without limit."""


@dataclasses.dataclass(frozen=True)
class Call:
    """The arguments with which diffusers paints the picture that `onereward-edit` paints.

    Attributes:
      pipeline: for a transformer alone: the editor that it belongs to, a hub id or a folder.
      packaged: that folder is inside this package.
      dtype: of the weights.
      side: sides of the square with the area that the model was trained at, in pixels.
      multiple: pixels per side of a token.
      prompt_tokens: T5 tokens of a prompt.
      num_inference_steps, guidance_scale, true_cfg_scale, solver, paste_back: see `EditDefaults`.
      negative_prompt: for true guidance.
    """

    pipeline: str
    packaged: bool
    dtype: str
    side: int
    multiple: int
    prompt_tokens: int
    num_inference_steps: int
    guidance_scale: float
    true_cfg_scale: float
    solver: str
    paste_back: bool
    negative_prompt: str


def editing_of(context: StageContext) -> dict[str, Any]:
    """The content of `EDITING` for the trained editor: its base's, or how the run evaluated it.

    The resolution is the run's own.
    """
    usual = dataclasses.asdict(EditDefaults())
    path, trained_at = context.base_model("editor") / EDITING, context.config.data.image_size
    if path.is_file():
        stated = read_json(path)
        same = stated.get("resolution", usual["resolution"]) == trained_at
        return stated if same else stated | {"resolution": trained_at}
    guidance = evaluate_guidance(context.config)
    used = EditDefaults(
        num_inference_steps=context.config.evaluate.num_steps,
        true_cfg_scale=guidance.true_cfg_scale,
        guidance_scale=guidance.guidance_scale,
        paste_back=context.config.models.paste_back,
        solver=context.config.models.solver,
        resolution=trained_at,
    )
    return {name: value for name, value in vars(used).items() if value != usual[name]}


def call_of(context: StageContext) -> Call:
    """The call of diffusers' pipeline for the exported editor."""
    config, base = context.config, context.base_model("editor")
    used = stated_defaults(editing_of(context), str(base / EDITING))
    limit = load_tokenizer(base / "tokenizer_2").model_max_length
    return Call(
        pipeline=base.as_posix() if made_by(config, "models.editor") else config.models.editor,
        packaged=base.is_relative_to(PACKAGE),
        dtype=config.export.dtype,
        side=used.resolution,
        multiple=read_policy(base).vae.config.scale_factor * PATCH,
        prompt_tokens=min(limit, LONGEST_PROMPT),
        num_inference_steps=used.num_inference_steps,
        guidance_scale=used.guidance_scale,
        true_cfg_scale=used.true_cfg_scale,
        solver=used.solver,
        paste_back=used.paste_back,
        negative_prompt=evaluate_guidance(config).negative_prompt,
    )
