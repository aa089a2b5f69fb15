"""The table of stages, in the order of the chain.

The fields of each stage determine when it is rerun: see `staleness.Effect`.
"""

from __future__ import annotations

import importlib
import pathlib
from collections.abc import Mapping
from typing import Any

from ml_collections import FrozenConfigDict

from onereward_jax.chain import fingerprints, plugins
from onereward_jax.chain.stage import Results, Stage, StageContext
from onereward_jax.chain.staleness import (
    Effect,
    Fields,
    adds,
    comes_to,
    content,
    grows,
    how,
    leaves,
    output,
    updates,
)
from onereward_jax.reward import TEMPLATE_VERSION
from onereward_jax.stages.benchmark_stage import benchmark_stage
from onereward_jax.stages.candidate_settings import like_rl
from onereward_jax.stages.compared_editors import digest_of_editors
from onereward_jax.stages.guidance_settings import evaluate_guidance
from onereward_jax.stages.imported_folders import imported_content
from onereward_jax.stages.preference_stores import save_lines
from onereward_jax.stages.reward_settings import trained_template_version
from onereward_jax.stages.rl_fields import ONLY_SOMETIMES, REFERENCE_GUIDANCE, RL_GUIDANCE
from onereward_jax.stages.rl_settings import read_by_method, task_probabilities
from onereward_jax.storage import local_path
from onereward_jax.tasks import OWN

OUTPUT, UPDATES, ADDS = Effect.OUTPUT, Effect.UPDATES, Effect.ADDS

FOLDER = {"data.source": ("folder",)}
TFDS = {"data.source": ("tfds",)}
FOLDER_OR_TFDS = {"data.source": ("folder", "tfds")}
NOT_IMPORTED = {"reward.preferences": ((), ("",))}
FROM_PAIRS = {"rl.algorithm": ("winners", "dpo")}
PEOPLE = {"annotate.by": ("people", "web")}

QUERY = {"query_template": TEMPLATE_VERSION}
"""Version of the wording, for stages that query a judge."""

PROMPTS = {"tasks": OWN.digest("prompt")} if OWN.tasks else {}
"""Tasks of one's own, as triplets know them."""

JUDGED = {"tasks": OWN.digest("dimensions")} if OWN.tasks else {}
"""The same, as answers know them."""

QUESTIONS = ("reward.suffix_length", "reward.unfit_prompts")
"""Fields that stages reading the output of `reward` use too: their effect is that on `reward`."""

EDITOR = (
    content("models.editor", fingerprints.model("models.editor")),
    content("models.transformer", fingerprints.model("models.transformer")),
)
"""The base editor."""


def _run_module(context: StageContext) -> Results | None:
    """Runs `onereward_jax.stages.<stage>`, imported late: its extras may not be installed."""
    return importlib.import_module(f"onereward_jax.stages.{context.module}").run(context)


def _check_module(context: StageContext) -> None:
    """Calls `check` of `onereward_jax.stages.<stage>`, if any; the import finds missing extras."""
    module = importlib.import_module(f"onereward_jax.stages.{context.module}")
    if hasattr(module, "check"):
        module.check(context)


def _shares(config: FrozenConfigDict) -> Any:
    """The effective value of `config.candidates.tasks`."""
    tasks = config.candidates.tasks
    return [tasks, task_probabilities(config)] if tasks == "as_sampled" else tasks


def _test_settings(config: FrozenConfigDict) -> Any:
    """The effective value of `config.candidates.test_like_rl`."""
    return like_rl(config) if config.candidates.test_like_rl else False


def _template_version(config: FrozenConfigDict, workdir: pathlib.Path) -> str:
    """Version of the judge's query template, if it is not that of the initial judge."""
    return trained_template_version(config) or fingerprints.NONE


def _plugin(name: str, *, effect: Effect = OUTPUT, same: Mapping[str, str] | None = None) -> Fields:
    """A field that may name a plug-in: compared by name and `VERSION`, and for a file by content.

    Args:
      name, effect: the field and the effect of a change.
      same: value -> another one that gives the same output.
    """

    def digest(config: FrozenConfigDict, workdir: pathlib.Path) -> str:
        value = str(leaves(config)[name])
        value = (same or {}).get(value, value)
        if not value.endswith(".py"):
            version = getattr(plugins.plugin(config, name), "VERSION", "")
            return f"{value} {version}".strip()
        path = local_path(value)
        return fingerprints.of_file(path) if path.is_file() else value

    return content(name, digest, effect=effect)


def _trained(section: str) -> tuple[Fields, ...]:
    """The fields of a training stage, whose steps may grow."""
    intervals = ("checkpoint_every", "log_every", "max_refused", "microbatches")
    return (
        output("seed", section, "models.dtype"),
        grows(f"{section}.steps"),
        how("models.remat", *(f"{section}.{name}" for name in intervals)),
        how(
            f"{section}.optimizer.final_fraction",
            when={f"{section}.optimizer.schedule": ("constant",)},
        ),
        how(
            f"{section}.lora.alpha", f"{section}.lora.targets", when={f"{section}.lora.rank": (0,)}
        ),
    )


STAGES: tuple[Stage, ...] = (
    Stage(
        name="curate",
        summary="choose pictures of a folder by CLIP and K-means, and make masks for them",
        run=_run_module,
        check=_check_module,
        fields=(
            output("models.dtype"),
            updates("seed", "curate", "data.image_size", "data.aspect_ratios"),
            updates("data.small_pictures"),
            content("curate.pictures", fingerprints.photographs("curate.pictures"), effect=UPDATES),
            content(
                "curate.segmentation",
                fingerprints.file_or_masks("curate.segmentation"),
                effect=UPDATES,
            ),
            content("curate.words", fingerprints.file("curate.words"), effect=UPDATES),
            content("curate.captions", fingerprints.file("curate.captions"), effect=UPDATES),
            content("curate.clip", fingerprints.model("curate.clip")),
            how("curate.batch_size"),
        ),
        resumes=True,
        alone=True,
    ),
    Stage(
        name="data",
        summary="make triplets (image, mask, prompt) for every task",
        run=_run_module,
        check=_check_module,
        fields=(
            _plugin("data.source"),
            output("data.image_size", "data.aspect_ratios", unless=TFDS),
            output("data.mask_indices", when=FOLDER),
            Fields(ADDS, ("data.small_pictures",), FOLDER),
            how("data.paths", when=FOLDER),
            output("seed", unless=FOLDER_OR_TFDS),
            content("data.path", fingerprints.pictures("data.path"), when=FOLDER),
            content("data.path", fingerprints.folder("data.path"), when=TFDS),
        ),
        plugins={"data.source": OUTPUT},
        versions=PROMPTS,
        resumes=True,
        alone=True,
        format=4,
    ),
    Stage(
        name="embed",
        summary="embed all prompts, so that later stages need no text encoder",
        run=_run_module,
        check=_check_module,
        fields=(
            output("models.dtype", "embed.max_length"),
            content("models.editor", fingerprints.model("models.editor")),
            adds("candidates.negative_prompts", "guidance.negative_prompt"),
            adds("rl.negative_prompt", "evaluate.negative_prompt"),
            content("reward.preferences", imported_content, effect=ADDS, when=FROM_PAIRS),
            how("embed.batch_size"),
        ),
        reads={"data": ADDS},
        versions=PROMPTS,
        resumes=True,
    ),
    Stage(
        name="candidates",
        summary="generate candidates per triplet with the base editor",
        run=_run_module,
        check=_check_module,
        fields=(
            output("seed", "candidates", "models.dtype", "models.paste_back", "models.solver"),
            *EDITOR,
            updates("candidates.train", "candidates.test", "candidates.chosen_by"),
            comes_to("candidates.tasks", _shares, effect=UPDATES),
            comes_to("candidates.test_like_rl", _test_settings, effect=UPDATES),
            how("candidates.batch_size"),
            _plugin("candidates.transform"),
        ),
        plugins={"candidates.transform": OUTPUT},
        reads={"data": UPDATES, "embed": OUTPUT},
        resumes=True,
        before_publishing=save_lines,
        format=3,
    ),
    Stage(
        name="annotate",
        summary="collect the best and worst candidate per dimension",
        run=_run_module,
        check=_check_module,
        fields=(
            _plugin("annotate.by", same={"web": "people"}),
            how("annotate.enough", when=PEOPLE),
            output("seed", unless=PEOPLE),
            content(
                "annotate.path",
                fingerprints.answers("annotate.path", folder="questions"),
                effect=UPDATES,
                when=PEOPLE,
            ),
            how("annotate.web", when=PEOPLE),
        ),
        plugins={"annotate.by": OUTPUT},
        versions=JUDGED,
        reads={"data": OUTPUT, "candidates": OUTPUT},
        resumes=True,
        before_publishing=save_lines,
        format=2,
        alone=True,
    ),
    Stage(
        name="reward",
        summary="train the judge on these preferences, measure its accuracy",
        run=_run_module,
        check=_check_module,
        fields=(
            *_trained("reward"),
            content("models.judge", fingerprints.model("models.judge")),
            content("reward.query_template", _template_version),
            # Truncation changes prompts; prompts that fit do not depend on the length.
            how("reward.suffix_length", when={"reward.unfit_prompts": ("refuse",)}),
            how("reward.evaluate_every", "reward.curve_shares"),
            updates("reward.judges"),
            content("reward.preferences", imported_content),
            # Pictures from elsewhere are cropped and resized to the buckets.
            output("data.image_size", "data.aspect_ratios", unless=NOT_IMPORTED),
        ),
        reads={"data": OUTPUT, "candidates": OUTPUT, "annotate": OUTPUT},
        versions=QUERY,
        resumes=True,
    ),
    Stage(
        name="label_curve",
        summary="measure the judge's accuracy by the number of labelled pairs",
        run=_run_module,
        fields=(
            *_trained("reward"),
            content("models.judge", fingerprints.model("models.judge")),
            content("reward.query_template", _template_version),
            how("reward.suffix_length", when={"reward.unfit_prompts": ("refuse",)}),
            how("reward.evaluate_every", "reward.judges"),
            updates("reward.curve_shares"),
            content("reward.preferences", imported_content),
        ),
        reads={"data": OUTPUT, "candidates": OUTPUT, "reward": OUTPUT},
        versions=QUERY,
        resumes=True,
    ),
    Stage(
        name="references",
        summary="make the reference's pictures that rl compares with, for its bank",
        run=_run_module,
        check=_check_module,
        fields=(
            output("models.dtype", "models.paste_back", "models.solver", "rl.num_steps"),
            *EDITOR,
            how("guidance", "rl.references", "candidates.batch_size"),
            *REFERENCE_GUIDANCE,
            # Which pictures are needed; what is in them does not depend on it.
            adds("seed", "rounds", "rl.bank_size", "rl.steps", "rl.batch_size", "rl.task_per"),
            adds("rl.task_probabilities"),
        ),
        reads={"data": ADDS, "embed": OUTPUT},
        versions=PROMPTS,
        resumes=True,
    ),
    Stage(
        name="rl",
        summary="train the editor with the judge's gradient",
        run=_run_module,
        check=_check_module,
        fields=(
            *_trained("rl"),
            output("models.paste_back", "models.solver"),
            *EDITOR,
            _plugin("rl.reward"),
            _plugin("rl.algorithm"),
            how("guidance", "reward.judges", "reward.held_out"),
            *RL_GUIDANCE,
            *ONLY_SOMETIMES,
            how("rl.sample_every", "rl.keep_every", "rl.conflicts_every", *QUESTIONS),
            output("reward.consensus", "reward.undecided", "reward.between", when=FROM_PAIRS),
            content("reward.preferences", imported_content, when=FROM_PAIRS),
            output("data.image_size", "data.aspect_ratios", when=FROM_PAIRS, unless=NOT_IMPORTED),
        ),
        plugins={"rl.reward": OUTPUT, "rl.algorithm": OUTPUT},
        reads={"data": OUTPUT, "embed": OUTPUT},
        reads_also=read_by_method,
        versions=QUERY | JUDGED,
        resumes=True,
    ),
    Stage(
        name="evaluate",
        summary="compare the editor with its base on held-out triplets; report",
        run=_run_module,
        check=_check_module,
        fields=(
            output("seed", "evaluate", "models.dtype", "models.paste_back", "models.solver"),
            *EDITOR,
            updates("evaluate.triplets", "evaluate.pictures", "evaluate.judge_same_margin"),
            updates("evaluate.questions", "evaluate.usability"),
            content("evaluate.editors", digest_of_editors, effect=UPDATES),
            content(
                "evaluate.answers",
                fingerprints.answers("evaluate.answers", folder="questions-ab"),
                effect=UPDATES,
            ),
            how("annotate.web"),
            content("evaluate.judge", fingerprints.model("evaluate.judge"), effect=Effect.UPDATES),
            updates("rl.vocabulary", "rl.judge_int8"),
            _plugin("evaluate.oracle", effect=UPDATES),
            how("guidance"),
            comes_to("evaluate.guidance_scale", lambda c: evaluate_guidance(c).guidance_scale),
            comes_to("evaluate.true_cfg_scale", lambda c: evaluate_guidance(c).true_cfg_scale),
            comes_to("evaluate.negative_prompt", lambda c: evaluate_guidance(c).negative_prompt),
            how("evaluate.batch_size", "models.remat", *QUESTIONS),
        ),
        plugins={"evaluate.oracle": UPDATES},
        reads={
            "data": OUTPUT,
            "embed": OUTPUT,
            "annotate": UPDATES,
            "reward": UPDATES,
            "label_curve": UPDATES,
            "rl": OUTPUT,
        },
        versions=QUERY,
        resumes=True,
    ),
    benchmark_stage(_run_module, _check_module),
    Stage(
        name="export",
        summary="write both models for diffusers and transformers",
        run=_run_module,
        check=_check_module,
        fields=(
            updates("export", "evaluate.num_steps", "models.paste_back", "models.solver"),
            *EDITOR,
            content("models.judge", fingerprints.model("models.judge"), effect=UPDATES),
            how("guidance"),
            comes_to(
                "evaluate.guidance_scale",
                lambda c: evaluate_guidance(c).guidance_scale,
                effect=UPDATES,
            ),
            comes_to(
                "evaluate.true_cfg_scale",
                lambda c: evaluate_guidance(c).true_cfg_scale,
                effect=UPDATES,
            ),
            comes_to(
                "evaluate.negative_prompt",
                lambda c: evaluate_guidance(c).negative_prompt,
                effect=UPDATES,
            ),
        ),
        reads={"data": OUTPUT, "reward": OUTPUT, "rl": OUTPUT, "evaluate": UPDATES},
    ),
)
