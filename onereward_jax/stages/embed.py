"""Stage `embed`: all prompts through T5 and CLIP once, so that no later stage needs them."""

from __future__ import annotations

from collections.abc import Iterator

from onereward_jax.policy import PromptEmbeds, embed_prompts, load_text_encoder, write_text_cache
from onereward_jax.stages.data import open_triplets
from onereward_jax.stages.progress import progress_bar
from onereward_jax.stages.settings import compute_dtype
from onereward_jax.stages.stage import Results, StageContext
from onereward_jax.tasks import FIXED_PROMPTS, NEGATIVE_PROMPTS


def run(context: StageContext) -> Results:
    """Writes the text cache `prompts`; returns how many prompts it has."""
    config, dtype = context.config.embed, compute_dtype(context.config)
    encoder, params = load_text_encoder(
        context.base_model("editor"),
        context.mesh,
        max_sequence_length=config.max_length,
        dtype=dtype,
    )
    prompts = dict.fromkeys([*NEGATIVE_PROMPTS, *FIXED_PROMPTS.values()])
    for split in ("train", "test"):
        prompts |= dict.fromkeys(open_triplets(context, split).column("prompt"))
    with progress_bar("embed", len(prompts), unit="prompt") as bar:

        def batches() -> Iterator[tuple[list[str], PromptEmbeds]]:
            for batch in embed_prompts(
                encoder, params, list(prompts), context.mesh, config.batch_size
            ):
                bar.update(len(batch[0]))
                yield batch

        write_text_cache(context.folder / "prompts", batches())
    return {"prompts": len(prompts)}
