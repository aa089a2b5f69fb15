"""Validation rules of config fields, by dotted name.

These are rules for single fields. Checks that involve multiple fields, files or devices are in the
`check` of the stage that reads them.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

from onereward_jax.annotation.labelled_pairs import CONSENSUS, UNDECIDED
from onereward_jax.convert.single_file_writer import SINGLE_FILE_DTYPES
from onereward_jax.parallel.remat import POLICIES
from onereward_jax.reward.judge_panel import ENSEMBLES, ORDERS
from onereward_jax.tasks import PAPER_TASKS, TASKS, Dimension


@dataclasses.dataclass(frozen=True)
class Rule:
    """A validation rule.

    Attributes:
      expected: description of valid values, the end of an error message.
      holds: value -> whether it is valid.
    """

    expected: str
    holds: Callable[[Any], bool]


EDITOR = re.compile(r"([a-z0-9][a-z0-9_.-]*)=(.+)")
"""An entry "name=folder" of `config.evaluate.editors`."""


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_integer(value) or (isinstance(value, float) and math.isfinite(value))


def choice(*values: str) -> Rule:
    """One of these strings."""
    return Rule(f"choose one of {', '.join(values)}", lambda value: value in values)


def whole(least: int, most: int | float = math.inf) -> Rule:
    """An integer in [least, most]."""
    bounds = f"from {least}" + (f" to {most}" if most < math.inf else "")
    return Rule(f"an integer {bounds} expected", lambda v: _is_integer(v) and least <= v <= most)


def number(low: float = -math.inf, high: float = math.inf, *, above: bool = False) -> Rule:
    """A finite number in [low, high], or in (low, high] if `above`."""
    if high < math.inf:
        expected = f"a number {'above' if above else 'from'} {low:g} to {high:g} expected"
    else:
        expected = f"a number {'above' if above else 'from'} {low:g} expected"
    return Rule(
        expected,
        lambda v: _is_number(v) and (low < v if above else low <= v) and v <= high,
    )


def between(low: float, high: float = math.inf) -> Rule:
    """Two ascending numbers in [low, high]."""
    bounds = f" from {low:g}" + (f" to {high:g}" if high < math.inf else "")
    return Rule(
        f"two numbers{bounds} expected, the smaller one first",
        lambda v: (
            isinstance(v, tuple)
            and len(v) == 2
            and all(map(_is_number, v))
            and low <= v[0] <= v[1] <= high
        ),
    )


def each(rule: Rule, *, empty: bool = False) -> Rule:
    """A tuple whose items satisfy a rule; not `empty`, unless that is allowed."""
    return Rule(
        f"a tuple of values expected, for each: {rule.expected}",
        lambda v: isinstance(v, tuple) and (empty or len(v) > 0) and all(map(rule.holds, v)),
    )


def or_none(rule: Rule) -> Rule:
    """None, or a value that satisfies a rule."""
    return Rule(f"None or {rule.expected}", lambda v: v is None or rule.holds(v))


TEXT = Rule("a text expected", lambda value: isinstance(value, str))
NAMED = Rule("it must not be empty", lambda value: isinstance(value, str) and value != "")
FLAG = Rule("True or False expected", lambda value: isinstance(value, bool))
SHARE = number(0.0, 1.0)
DECAY = Rule("a number from 0 to below 1 expected", lambda v: _is_number(v) and 0 <= v < 1)
DTYPE = choice("float32", "bfloat16", "float16")
VOCABULARY = choice("full", "yes_no")


def _is_pattern(value: Any) -> bool:
    try:
        re.compile(value)
    except (re.error, TypeError):
        return False
    return True


EDITORS = Rule(
    'a tuple of "name=folder" expected, with lower-case names',
    lambda v: (
        isinstance(v, tuple)
        and all(isinstance(one, str) and re.fullmatch(EDITOR, one) for one in v)
    ),
)
COMPARED = Rule(
    'a tuple of "base", "policy" and "name=folder" expected, with lower-case names',
    lambda v: (
        isinstance(v, tuple)
        and all(one in ("base", "policy") or EDITORS.holds((one,)) for one in v)
    ),
)
FOLDERS = Rule(
    "a tuple of folders expected",
    lambda v: isinstance(v, tuple) and all(isinstance(one, str) for one in v),
)
PATTERN = Rule("a regular expression expected", _is_pattern)
WEB_ADDRESS = Rule(
    'an address such as https://label.example.org expected, or ""',
    lambda v: isinstance(v, str) and re.fullmatch(r"(https?://[^/\s]+/?)?", v) is not None,
)
SHOWN = Rule(
    'choose "outlined" or "blanked", or leave it empty', lambda v: v in ("", "outlined", "blanked")
)
CROP = Rule("0 or a number from 1 expected", lambda v: _is_number(v) and (v == 0 or v >= 1))
SIDE = Rule("a multiple of 16 expected", lambda v: _is_integer(v) and v > 0 and v % 16 == 0)
AXIS = Rule("devices, 1 or more, or -1 expected", lambda v: _is_integer(v) and (v > 0 or v == -1))


def _optimizer(section: str) -> dict[str, Rule]:
    rules = {
        "learning_rate": number(0.0, above=True),
        "schedule": choice("constant", "cosine"),
        "warmup_steps": whole(0),
        "final_fraction": SHARE,
        "b1": DECAY,
        "b2": DECAY,
        "eps": number(0.0, above=True),
        "weight_decay": number(0.0),
        "clip_norm": number(0.0, above=True),
        "moments": choice("float32", "bfloat16", "int8"),
    }
    return {f"{section}.optimizer.{name}": rule for name, rule in rules.items()}


def jitter(section: str) -> dict[str, Rule]:
    """Rules of a section `jitter`, see `reward.jitter`."""
    rules = {"noise": number(0.0), "shift": whole(0), "negative": SHARE}
    return {f"{section}.jitter.{name}": rule for name, rule in rules.items()}


def _training(section: str) -> dict[str, Rule]:
    """Rules shared by the training stages."""
    names = ("steps", "batch_size", "microbatches", "checkpoint_every", "log_every")
    rules = {f"{section}.{name}": whole(1) for name in names}
    rules[f"{section}.max_refused"] = whole(0)
    rules[f"{section}.vocabulary"] = VOCABULARY
    rules[f"{section}.lora.rank"] = whole(0)
    rules[f"{section}.lora.alpha"] = number(0.0, above=True)
    rules[f"{section}.lora.targets"] = PATTERN
    return rules | _optimizer(section) | jitter(section)


def per_task(section: str, rule: Rule) -> dict[str, Rule]:
    """The same rule for a field of each task."""
    return {f"{section}.{task.value}": rule for task in TASKS}


def _card(section: str) -> dict[str, Rule]:
    names = ("base_model", "license", "license_name", "license_link")
    return {f"{section}.{name}": TEXT for name in names}


RULES: dict[str, Rule] = {
    "seed": whole(0, 2**64 - 1),
    "stages": each(NAMED),
    "mesh.data": AXIS,
    "mesh.fsdp": AXIS,
    "mesh.tensor": AXIS,
    "mesh.context": AXIS,
    "logging.tensorboard": FLAG,
    "logging.wandb": TEXT,
    "logging.profile_steps": each(whole(0)),
    "compilation_cache": TEXT,
    "models.editor": NAMED,
    "models.transformer": TEXT,
    "models.judge": NAMED,
    "models.paste_back": FLAG,
    "models.solver": choice("euler", "ab2"),
    "models.dtype": DTYPE,
    "models.remat": choice("none", *POLICIES),
    "curate.pictures": TEXT,
    "curate.clip": TEXT,
    "curate.batch_size": whole(1),
    "curate.duplicates": number(0.0, 2.0, above=True),
    "curate.clusters": whole(1),
    "curate.near": whole(0),
    "curate.far": whole(0),
    "curate.rows": whole(1),
    "curate.segmentation": TEXT,
    "curate.words": TEXT,
    "curate.captions": TEXT,
    **{f"curate.tasks.{task.value}": number(0.0) for task in PAPER_TASKS},
    **{
        f"curate.{kind}": number(0.0)
        for kind in (
            *("fill.boxes", "fill.strokes", "fill.silhouettes", "fill.words"),
            *("extend.all_sides", "extend.some_sides", "removal.silhouettes", "removal.boxes"),
        )
    },
    "curate.area": between(0.001, 0.8),
    "curate.border": between(0.01, 0.45),
    "curate.grow": number(0.0, 0.2),
    "curate.sheet": whole(0),
    "data.source": NAMED,
    "data.path": TEXT,
    "data.paths": choice("inside", "anywhere"),
    "data.mask_indices": each(whole(0, 65535), empty=True),
    "data.image_size": SIDE,
    "data.aspect_ratios": each(number(0.0, above=True)),
    "data.small_pictures": choice("upscale", "refuse"),
    "guidance.guidance_scale": number(0.0),
    "guidance.true_cfg_scale": number(0.0),
    "guidance.negative_prompt": TEXT,
    "embed.max_length": whole(1),
    "embed.batch_size": whole(1),
    "candidates.count": whole(2),
    "candidates.train": whole(1),
    "candidates.test": whole(1),
    "candidates.tasks": choice("as_sampled", "evenly"),
    "candidates.chosen_by": choice("hash", "clusters"),
    "candidates.batch_size": whole(1),
    "candidates.num_steps": each(whole(1)),
    "candidates.negative_prompts": each(TEXT),
    "candidates.guidance_scale": between(0.0),
    "candidates.true_cfg_scale": between(0.0),
    "candidates.transform": TEXT,
    "candidates.strength": between(0.0, 1.0),
    "candidates.test_like_rl": FLAG,
    "candidates.guided_by": choice("either", "both"),
    "rounds": whole(1),
    "later_rounds.train": or_none(whole(1)),
    "later_rounds.test": or_none(whole(1)),
    "later_rounds.triplets": choice("other", "same"),
    "later_rounds.from_policy": or_none(whole(0)),
    "later_rounds.weights": choice("policy", "ema"),
    "later_rounds.share": or_none(number(0.0, 0.9, above=True)),
    "later_rounds.judge": choice("first", "last"),
    "later_rounds.reward_steps": or_none(whole(1)),
    "later_rounds.rl": choice("policy", "base"),
    "later_rounds.rl_steps": or_none(whole(1)),
    "annotate.by": NAMED,
    "annotate.path": TEXT,
    "annotate.enough": SHARE,
    "annotate.web.host": NAMED,
    "annotate.web.port": whole(1, 65535),
    "annotate.web.url": WEB_ADDRESS,
    "annotate.web.database": TEXT,
    "annotate.web.overlap": whole(1),
    "annotate.web.lease_minutes": number(0.0, above=True),
    "annotate.web.gold": TEXT,
    "annotate.web.gold_every": whole(2),
    "annotate.web.guidelines": TEXT,
    **_training("reward"),
    "reward.preferences": FOLDERS,
    "reward.consensus": choice(*CONSENSUS),
    "reward.undecided": choice(*UNDECIDED),
    "reward.between": FLAG,
    "reward.kind": choice("pairwise", "scalar"),
    "reward.mirror": SHARE,
    "reward.tasks": choice("as_found", "evenly"),
    "reward.crop": CROP,
    "reward.source": SHOWN,
    "reward.query_template": TEXT,
    "reward.suffix_length": whole(1),
    "reward.unfit_prompts": choice("refuse", "cut"),
    "reward.judges": whole(1),
    "reward.judge_share": number(0.0, 1.0, above=True),
    "reward.held_out": DECAY,
    "reward.validation": DECAY,
    "reward.keep_best": FLAG,
    "reward.label_smoothing": DECAY,
    "reward.curve_shares": each(number(0.0, 1.0, above=True)),
    "reward.evaluate_every": whole(1),
    **_training("rl"),
    "rl.algorithm": NAMED,
    "rl.reward": NAMED,
    "rl.reward_upper_bound": SHARE,
    "rl.judge_int8": FLAG,
    "rl.orders": choice(*ORDERS),
    "rl.ensemble": choice(*ENSEMBLES),
    "rl.ensemble_spread": number(0.0),
    "rl.held_out_every": whole(0),
    "rl.stop_at_gap": SHARE,
    "rl.ema_decay": SHARE,
    "rl.num_steps": whole(1),
    "rl.t1": whole(0),
    "rl.t2": whole(0),
    "rl.surrogate": choice("single", "endpoint", "several", "sparse", "leap"),
    "rl.active_steps": whole(1),
    "rl.leap_discount": SHARE,
    "rl.shared_noise": choice("none", "outside", "all"),
    "rl.gradient_in_mask": FLAG,
    "rl.anchor_weight": number(0.0),
    "rl.rollout_int8": FLAG,
    "rl.references": choice("rollout", "bank"),
    "rl.bank_size": whole(1),
    "rl.group_size": whole(2),
    "rl.compare": choice("reference", "group"),
    "rl.opponents": whole(1),
    "rl.trained_levels": whole(1),
    "rl.advantage_limit": number(0.0, above=True),
    "rl.error_area": choice("mask", "whole"),
    "rl.nft_beta": number(0.0, above=True),
    "rl.grpo_noise": number(0.0, above=True),
    "rl.clip_range": number(0.0, above=True),
    "rl.inner_updates": whole(1),
    "rl.guidance_scale": or_none(number(0.0)),
    "rl.policy_true_cfg_scale": or_none(number(0.0)),
    "rl.prediction_true_cfg_scale": or_none(number(0.0)),
    "rl.reference_true_cfg_scale": or_none(number(0.0)),
    "rl.negative_prompt": or_none(TEXT),
    **per_task("rl.task_probabilities", number(0.0)),
    **{f"rl.dimension_weights.{one.value}": number(0.0) for one in Dimension},
    "rl.balance": choice("mean", "worst", "floors", "spread"),
    "rl.balance_temperature": number(0.0, above=True),
    "rl.floor": number(0.0, 1.0, above=True),
    "rl.floor_gain": number(0.0),
    "rl.balance_window": whole(1),
    "rl.project_conflicts": choice("none", "dimensions", "tasks", "both"),
    "rl.task_per": choice("sample", "iteration"),
    "rl.flow_matching_weight": number(0.0),
    "rl.dpo_beta": number(0.0, above=True),
    "rl.sample_every": whole(1),
    "rl.keep_every": whole(0),
    "rl.conflicts_every": whole(0),
    **per_task("evaluate.triplets", whole(0)),
    "evaluate.batch_size": whole(1),
    "evaluate.num_steps": whole(1),
    "evaluate.guidance_scale": or_none(number(0.0)),
    "evaluate.true_cfg_scale": or_none(number(0.0)),
    "evaluate.negative_prompt": or_none(TEXT),
    "evaluate.oracle": TEXT,
    "evaluate.judge_same_margin": SHARE,
    "evaluate.judge": TEXT,
    "evaluate.questions": whole(0),
    "evaluate.usability": whole(0),
    "evaluate.editors": EDITORS,
    "evaluate.answers": TEXT,
    "evaluate.weights": choice("policy", "ema"),
    "evaluate.pictures": whole(0),
    "benchmark.folders": EDITORS,
    "benchmark.editors": COMPARED,
    "benchmark.rows": whole(0),
    "benchmark.longest_side": whole(0),
    "benchmark.batch_size": whole(1),
    "benchmark.lpips": TEXT,
    "benchmark.clip": TEXT,
    "benchmark.judge": TEXT,
    "benchmark.pictures": whole(0),
    "export.weights": choice("policy", "ema"),
    "export.dtype": DTYPE,
    "export.editor": choice("pipeline", "transformer"),
    "export.comfyui": choice("", *SINGLE_FILE_DTYPES),
    "export.adapter": choice("diffusers", "kohya", "comfyui"),
    "export.shard_gb": number(0.0, above=True),
    **_card("export.editor_card"),
    **_card("export.judge_card"),
}
"""Dotted name, without "config." -> rule."""
