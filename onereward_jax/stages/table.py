"""The table of stages, in the order in which a chain runs them."""

from __future__ import annotations

import importlib

from onereward_jax.reward import TEMPLATE_VERSION
from onereward_jax.stages.stage import Results, Stage, StageContext


def _run_module(context: StageContext) -> Results | None:
    """Run `onereward_jax.stages.<stage>`, imported only now: its extras may not be installed."""
    return importlib.import_module(f"onereward_jax.stages.{context.stage}").run(context)


_QUERY = {"query_template": TEMPLATE_VERSION}
"""Stages in which a judge is asked: other words make other answers."""

STAGES: tuple[Stage, ...] = (
    Stage(
        name="data",
        summary="make triplets (image, mask, prompt) of every task",
        run=_run_module,
        sections=("data",),
        alone=True,
    ),
    Stage(
        name="pretrain",
        summary="train base editor and judge from nothing (mini models only)",
        run=_run_module,
        sections=("pretrain",),
        versions=_QUERY,
        resumes=True,
    ),
    Stage(
        name="embed",
        summary="embed all prompts, so that later stages need no text encoder",
        run=_run_module,
        sections=("models", "embed"),
        reads=("data", "pretrain"),
    ),
    Stage(
        name="candidates",
        summary="let the base editor make several candidates per triplet",
        run=_run_module,
        sections=("data", "models", "candidates"),
        reads=("data", "pretrain", "embed"),
        resumes=True,
    ),
    Stage(
        name="annotate",
        summary="pick the best and worst of them, dimension by dimension",
        run=_run_module,
        sections=("annotate",),
        reads=("data", "candidates"),
        resumes=True,
        alone=True,
    ),
    Stage(
        name="reward",
        summary="train the judge on those preferences, measure its accuracy",
        run=_run_module,
        sections=("models", "reward"),
        reads=("data", "pretrain", "candidates", "annotate"),
        versions=_QUERY,
        resumes=True,
    ),
    Stage(
        name="rl",
        summary="train the editor through the judge's answer",
        run=_run_module,
        sections=("models", "rl"),
        reads=("data", "pretrain", "embed", "reward"),
        versions=_QUERY,
        resumes=True,
    ),
    Stage(
        name="evaluate",
        summary="compare the editor with its base on new triplets; report",
        run=_run_module,
        sections=("models", "evaluate"),
        reads=("data", "pretrain", "embed", "annotate", "reward", "rl"),
        versions=_QUERY,
    ),
    Stage(
        name="export",
        summary="write both models for diffusers and transformers",
        run=_run_module,
        sections=("models", "export"),
        reads=("data", "pretrain", "reward", "rl", "evaluate"),
    ),
)
