"""The table of stages, in the order in which a chain runs them.

The fields of each stage say when it runs again: see `inputs.Effect`.
"""

from __future__ import annotations

import importlib

from onereward_jax.reward import TEMPLATE_VERSION
from onereward_jax.stages import fingerprints
from onereward_jax.stages.inputs import Effect, Fields, adds, content, grows, how, output, updates
from onereward_jax.stages.stage import Results, Stage, StageContext

OUTPUT, UPDATES, ADDS = Effect.OUTPUT, Effect.UPDATES, Effect.ADDS

MINI = {"data.source": ("mini",)}
MINI_OR_FOLDER = {"data.source": ("mini", "folder")}
FOLDER = {"data.source": ("folder",)}
TFDS = {"data.source": ("tfds",)}
ORACLE = {"annotate.by": ("oracle",)}
PEOPLE = {"annotate.by": ("people",)}

QUERY = {"query_template": TEMPLATE_VERSION}
"""Stages in which a judge is asked: other words make other answers."""

EDITOR = (
    content("models.editor", fingerprints.model("models.editor")),
    content("models.transformer", fingerprints.model("models.transformer")),
)
"""The base editor."""


def _run_module(context: StageContext) -> Results | None:
    """Run `onereward_jax.stages.<stage>`, imported only now: its extras may not be installed."""
    return importlib.import_module(f"onereward_jax.stages.{context.stage}").run(context)


def _check_module(context: StageContext) -> None:
    """Call `check` of `onereward_jax.stages.<stage>`, where it has one; also finds missing extras.
    """
    module = importlib.import_module(f"onereward_jax.stages.{context.stage}")
    if hasattr(module, "check"):
        module.check(context)


def _trained(section: str) -> tuple[Fields, ...]:
    """The section of a stage that trains: its steps may grow."""
    intervals = ("checkpoint_every", "log_every", "max_refused", "accumulate")
    return (
        output("seed", section, "models.dtype"),
        grows(f"{section}.steps"),
        how("models.remat", *(f"{section}.{name}" for name in intervals)),
        how(
            f"{section}.optimizer.final_fraction",
            when={f"{section}.optimizer.schedule": ("constant",)},
        ),
    )


STAGES: tuple[Stage, ...] = (
    Stage(
        name="data",
        summary="make triplets (image, mask, prompt) of every task",
        run=_run_module,
        check=_check_module,
        fields=(
            output("data.source"),
            output("data.image_size", "data.aspect_ratios", when=MINI_OR_FOLDER),
            output("seed", "data.train", "data.test", when=MINI),
            content("data.path", fingerprints.pictures("data.path"), when=FOLDER),
            content("data.path", fingerprints.folder("data.path"), when=TFDS),
        ),
        alone=True,
    ),
    Stage(
        name="pretrain",
        summary="train base editor and judge from nothing (mini models only)",
        run=_run_module,
        check=_check_module,
        fields=(
            output("seed", "pretrain"),
            how("pretrain.checkpoint_every", "pretrain.log_every"),
        ),
        versions=QUERY,
        resumes=True,
    ),
    Stage(
        name="embed",
        summary="embed all prompts, so that later stages need no text encoder",
        run=_run_module,
        check=_check_module,
        fields=(
            output("models.dtype", "embed.max_length"),
            content("models.editor", fingerprints.model("models.editor")),
            adds("candidates.negative_prompts", "rl.negative_prompt", "evaluate.negative_prompt"),
            how("embed.batch_size"),
        ),
        reads={"data": ADDS, "pretrain": OUTPUT},
    ),
    Stage(
        name="candidates",
        summary="let the base editor make several candidates per triplet",
        run=_run_module,
        check=_check_module,
        fields=(
            output("seed", "candidates", "models.dtype", "models.paste_back"),
            *EDITOR,
            updates("candidates.train", "candidates.test", "candidates.tasks"),
            how("candidates.batch_size"),
            how("candidates.disturbance", when={"candidates.disturbed": (0.0,)}),
        ),
        reads={"data": UPDATES, "pretrain": OUTPUT, "embed": OUTPUT},
        resumes=True,
    ),
    Stage(
        name="annotate",
        summary="pick the best and worst of them, dimension by dimension",
        run=_run_module,
        check=_check_module,
        fields=(
            output("annotate.by"),
            output("seed", "annotate.noise_rate", "annotate.margin", when=ORACLE),
            content(
                "annotate.path",
                fingerprints.answers("annotate.path", in_place="questions/questions.jsonl"),
                effect=UPDATES,
                when=PEOPLE,
            ),
        ),
        reads={"data": OUTPUT, "candidates": OUTPUT},
        resumes=True,
        alone=True,
    ),
    Stage(
        name="reward",
        summary="train the judge on those preferences, measure its accuracy",
        run=_run_module,
        check=_check_module,
        fields=(
            *_trained("reward"),
            content("models.judge", fingerprints.model("models.judge")),
            how("reward.evaluate_every", "reward.suffix_length"),
        ),
        reads={"data": OUTPUT, "pretrain": OUTPUT, "candidates": OUTPUT, "annotate": OUTPUT},
        versions=QUERY,
        resumes=True,
    ),
    Stage(
        name="rl",
        summary="train the editor through the judge's answer",
        run=_run_module,
        check=_check_module,
        fields=(
            *_trained("rl"),
            output("models.paste_back"),
            *EDITOR,
            how("rl.sample_every", "reward.suffix_length"),
            how("rl.lora.alpha", "rl.lora.targets", when={"rl.lora.rank": (0,)}),
        ),
        reads={"data": OUTPUT, "pretrain": OUTPUT, "embed": OUTPUT, "reward": OUTPUT},
        versions=QUERY,
        resumes=True,
    ),
    Stage(
        name="evaluate",
        summary="compare the editor with its base on new triplets; report",
        run=_run_module,
        check=_check_module,
        fields=(
            output("seed", "evaluate", "models.dtype", "models.paste_back"),
            *EDITOR,
            updates("evaluate.triplets", "evaluate.pictures", "evaluate.judge_same_margin"),
            content(
                "evaluate.judge", fingerprints.model("evaluate.judge"), effect=Effect.UPDATES
            ),
            updates("rl.vocabulary", "rl.judge_int8"),
            how("evaluate.same_margin"),
            updates("evaluate.same_margin", when=MINI),
            how("evaluate.batch_size", "reward.suffix_length", "models.remat"),
        ),
        reads={
            "data": OUTPUT,
            "pretrain": OUTPUT,
            "embed": OUTPUT,
            "annotate": UPDATES,
            "reward": UPDATES,
            "rl": OUTPUT,
        },
        versions=QUERY,
        resumes=True,
    ),
    Stage(
        name="export",
        summary="write both models for diffusers and transformers",
        run=_run_module,
        check=_check_module,
        fields=(updates("export"), *EDITOR),
        reads={
            "data": OUTPUT,
            "pretrain": OUTPUT,
            "reward": OUTPUT,
            "rl": OUTPUT,
            "evaluate": UPDATES,
        },
    ),
)
