"""The entry of the stage `benchmark` in the table of stages.

Everything that it keeps is compared picture by picture with what it depends on, so that no change
makes it start over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ml_collections import FrozenConfigDict

from onereward_jax.chain import fingerprints
from onereward_jax.chain.stage import Results, Stage, StageContext
from onereward_jax.chain.staleness import Digest, Effect, Fields, comes_to, content, how, updates
from onereward_jax.reward import TEMPLATE_VERSION
from onereward_jax.stages.benchmark_inputs import (
    digest_of_compared,
    digest_of_folders,
    digest_of_judge,
    read_stages,
)
from onereward_jax.stages.guidance_settings import evaluate_guidance


def benchmark_stage(
    run: Callable[[StageContext], Results | None], check: Callable[[StageContext], None]
) -> Stage:
    """The stage; `run` and `check` import its modules late."""
    return Stage(
        name="benchmark",
        summary="compare editors on benchmark folders: PSNR, LPIPS, CLIP, OCR, judges",
        run=run,
        check=check,
        fields=(
            updates("seed", "benchmark", "models.dtype", "models.paste_back", "models.solver"),
            *(
                _content(name, fingerprints.model(name))
                for name in (
                    "models.editor",
                    "models.transformer",
                    "benchmark.lpips",
                    "benchmark.clip",
                    "evaluate.judge",
                )
            ),
            _content("benchmark.folders", digest_of_folders),
            _content("benchmark.editors", digest_of_compared),
            _content("benchmark.judge", digest_of_judge),
            updates("evaluate.num_steps", "evaluate.weights", "rl.vocabulary"),
            how("guidance"),
            *(_guidance(name) for name in ("guidance_scale", "true_cfg_scale", "negative_prompt")),
            how("benchmark.batch_size", "reward.suffix_length", "reward.unfit_prompts"),
        ),
        reads_also=read_stages,
        versions={"query_template": TEMPLATE_VERSION},
        resumes=True,
    )


def _content(name: str, digest: Digest) -> Fields:
    return content(name, digest, effect=Effect.UPDATES)


def _guidance(name: str) -> Fields:
    def value(config: FrozenConfigDict) -> Any:
        return getattr(evaluate_guidance(config), name)

    return comes_to(f"evaluate.{name}", value, effect=Effect.UPDATES)
