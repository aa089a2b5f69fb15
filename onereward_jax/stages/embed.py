"""Stage `embed`: embeds all prompts with T5 and CLIP, so that later stages need no text encoder.

Prompts of the data, fixed prompts of the tasks, all negative prompts of the config and, for methods
that learn from pairs, prompts of imported answers. Embedded prompts are kept: only new ones are
added.
"""

from __future__ import annotations

from collections.abc import Iterator

from onereward_jax.chain.base_models import made_by
from onereward_jax.chain.stage import Results, StageContext
from onereward_jax.parallel.preemption import stop_points
from onereward_jax.parallel.progress import progress_bar
from onereward_jax.policy import (
    PromptEmbeds,
    add_to_text_cache,
    embed_prompts,
    embedded_prompts,
    load_text_encoder,
    read_text_configs,
)
from onereward_jax.policy.text_encoders import check_prompt
from onereward_jax.stages.data import open_triplets
from onereward_jax.stages.guidance_settings import negative_prompts
from onereward_jax.stages.rl_pairs import imported_prompts
from onereward_jax.stages.rl_settings import method_of
from onereward_jax.stages.settings import compute_dtype
from onereward_jax.tasks import FIXED_PROMPTS


def check(context: StageContext) -> None:
    """Checks the negative prompts, and that the editor has text encoders.

    Raises:
      FileNotFoundError, ValueError: naming the field.
    """
    for prompt in negative_prompts(context.config):
        check_prompt(prompt)
    if not made_by(context.config, "models.editor"):
        folder = context.base_model("editor")
        try:
            read_text_configs(folder)
        except (FileNotFoundError, ValueError) as error:
            raise type(error)(f"config.models.editor: {error}") from error


def run(context: StageContext) -> Results:
    """Completes the text cache `prompts`; returns the number of prompts in use."""
    config, dtype = context.config.embed, compute_dtype(context.config)
    folder = context.folder / "prompts"
    prompts = dict.fromkeys([*negative_prompts(context.config), *FIXED_PROMPTS.values()])
    for split in ("train", "test"):
        prompts |= dict.fromkeys(open_triplets(context, split).column("prompt"))
    if "rl" in context.config.stages and method_of(context.config).batches == "pairs":
        prompts |= dict.fromkeys(imported_prompts(context.config))
    known = embedded_prompts(folder)
    missing = [prompt for prompt in prompts if prompt not in known]
    if not missing:
        return {"prompts": len(prompts)}
    encoder, params = load_text_encoder(
        context.base_model("editor"),
        context.mesh,
        max_sequence_length=config.max_length,
        dtype=dtype,
        param_dtype=dtype,
    )
    done = len(prompts) - len(missing)
    with (
        progress_bar(
            "embed", len(prompts), initial=done, unit="prompt", program=context.program("embed")
        ) as bar,
        stop_points("embed") as stop,
    ):

        def batches() -> Iterator[tuple[list[str], PromptEmbeds]]:
            for batch in embed_prompts(encoder, params, missing, context.mesh, config.batch_size):
                yield batch  # on disk when the next one is requested
                bar.update(len(batch[0]))
                stop.if_asked(f"at {bar.n} of {len(prompts)} prompts")

        add_to_text_cache(folder, batches())
    return {"prompts": len(prompts)}
