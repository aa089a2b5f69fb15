"""The declared runs of benchmarks/evidence.py: one line each, and a section per question.

A run is configs/mini.py with overrides. Add one with a line below; a changed line is run anew.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from onereward_jax.common.config_files import flatten_config, load_config
from onereward_jax.tasks import PAPER_TASKS, Task

CONFIG = "configs/mini.py"

FORMAT = 1
"""Of a row, and of how it is measured: rows of other formats are measured anew."""


@dataclasses.dataclass(frozen=True)
class Run:
    """A run of the grid.

    Attributes:
      name: its folder, row and line in tables.
      about: what differs from the config, for tables.
      overrides: dotted config field -> value.
      tasks: the tasks to compare in tables; those that it is trained for.
    """

    name: str
    about: str
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tasks: tuple[Task, ...] = PAPER_TASKS


KEEP_EVERY = 100
"""Steps between the weights of a run that are compared, for curves."""

QUICK = {"rl.steps": 200}
LONG = {"rl.steps": 800, "rl.flow_matching_weight": 2.0}
"""Four times the quickstart, with more of what keeps it from cheating."""

LIGHT = {"rl.flow_matching_weight": 1.0}

FAST = {"rl.optimizer.learning_rate": 1e-4}

TWO_ROUNDS = {
    "rounds": 2,
    "rl.steps": 400,
    "candidates.train": 800,
    "later_rounds.train": 800,
    "candidates.test": 400,
    "later_rounds.test": 400,
}

SEVERAL = {"rl.surrogate": "several", "rl.active_steps": 3, "rl.t1": 3}

NO_PASTE = {"models.paste_back": False}
"""With it, pixels outside the mask pass no gradient anyway."""

SCALAR = {"reward.kind": "scalar"}

LONG_JUDGE = {**LONG, "reward.steps": 2100}
"""And three times as many steps of the judge."""

ALONE = {"rl.flow_matching_weight": 0.0}
"""Without the targets of the triplets."""

DPO_TARGETS = {"rl.algorithm": "dpo", "rl.flow_matching_weight": 10.0}
"""The gradient of its own loss is larger by beta / 2."""


DPO_30 = {
    "rl.algorithm": "dpo",
    "rl.dpo_beta": 30.0,
    "rl.optimizer.learning_rate": 1e-4,
}

NFT_GROUPS = {
    "rl.algorithm": "nft",
    "rl.batch_size": 4,
    "rl.compare": "group",
    "rl.opponents": 3,
    "rl.nft_beta": 0.5,
    "rl.advantage_limit": 1.0,
    "rl.trained_levels": 1,
    "rl.optimizer.learning_rate": 3e-4,
    "reward.steps": 2100,
}


def only(task: Task, steps: int) -> dict[str, Any]:
    """A single-task run; `steps` of a multi-task run, of which it gets its equal share."""
    chances = {f"rl.task_probabilities.{one.value}": float(one is task) for one in PAPER_TASKS}
    return {**LONG, **chances, "rl.steps": steps // len(PAPER_TASKS)}


def bank(size: int) -> dict[str, Any]:
    """References from a bank with `size` per triplet."""
    return {"rl.references": "bank", "rl.bank_size": size}


GRID: tuple[Run, ...] = (
    # Does it learn, and does it keep learning?
    Run("quickstart", "the default config", QUICK),
    Run("long", "four times longer, twice the flow matching", LONG),
    Run("long-light", "with the quickstart's flow matching", {**LONG, **LIGHT}),
    Run("long-fast", "with a learning rate of 1e-4", {**LONG, **FAST}),
    Run("no-judge", "no gradient from the judge", {**LONG, "rl.reward_upper_bound": 1e-6}),
    # References made once, K per triplet, instead of in each step
    *(Run(f"bank-{k}", f"a bank of {k} per triplet", {**QUICK, **bank(k)}) for k in (1, 2, 4)),
    # The paper's two algorithms; many tasks in one run or a run for each
    Run("dynamic", "Algorithm 2", {**LONG, "rl.algorithm": "dynamic"}),
    *(
        Run(f"only-{task.value}", f"trained for {task.value} only", only(task, 800), (task,))
        for task in PAPER_TASKS
    ),
    # What the judge sees, and in which order
    Run("crop", "the judge sees the mask with context", {**LONG, "reward.crop": 1.25}),
    Run("outlined", "the judge sees the source too", {**LONG, "reward.source": "outlined"}),
    Run("both-orders", "both orders in the loss", {**LONG, "rl.orders": "both"}),
    # Judges
    Run("ensemble", "the least of three", {**LONG, "reward.judges": 3, "rl.ensemble": "least"}),
    Run("judge", "a judge trained three times longer", LONG_JUDGE),
    Run("smoothing", "label smoothing 0.1", {**LONG, "reward.label_smoothing": 0.1}),
    Run("best", "the best judge", {**LONG, "reward.validation": 0.1, "reward.keep_best": True}),
    Run("gap", "a held-out judge ends it", {**LONG, "reward.held_out": 0.2, "rl.stop_at_gap": 0.1}),
    # Rounds, with the answers and steps of one
    Run("rounds", "two rounds, half of the answers and steps each", {**LONG, **TWO_ROUNDS}),
    # Dimensions that share an update
    Run("worst", "the worst dimension weighs most", {**LONG, "rl.balance": "worst"}),
    Run(
        "careful",
        "that, twice the flow matching, and a judge trained three times longer",
        {**LONG_JUDGE, "rl.balance": "worst", "rl.flow_matching_weight": 4.0},
    ),
    Run("floors", "dimensions below 0.5 weigh more", {**LONG, "rl.balance": "floors"}),
    Run("spread", "weights by the spread of rewards", {**LONG, "rl.balance": "spread"}),
    Run("projected", "conflicts are projected", {**LONG, "rl.project_conflicts": "both"}),
    # The gradient: what the judge sees of the rollout, which steps learn, how far they go
    Run("endpoint", "the judge sees finished samples", {**LONG, "rl.surrogate": "endpoint"}),
    Run("several", "three of the last five steps learn", {**LONG, **SEVERAL}),
    Run("leap", "leaps between any two steps", {**LONG, "rl.surrogate": "leap", "rl.t1": 0}),
    Run("anchor", "anchored to the initial velocities", {**LONG, "rl.anchor_weight": 0.1}),
    Run("no-paste", "the editor also repaints what is kept", {**LONG, **NO_PASTE}),
    Run("in-mask", "and learns inside the mask", {**LONG, **NO_PASTE, "rl.gradient_in_mask": True}),
    # Other methods on the same data
    Run("refl", "ReFL on the difference of rewards", {**LONG, "rl.algorithm": "refl"}),
    Run("scalar-refl", "ReFL with a scalar judge", {**LONG, **SCALAR, "rl.algorithm": "refl"}),
    Run("scalar", "Algorithm 1 with a scalar judge", {**LONG, **SCALAR}),
    Run("nft", "DiffusionNFT", {**LONG, "rl.algorithm": "nft"}),
    Run("nft-groups", "win rates in the group, large steps", {**LONG, **NFT_GROUPS}),
    Run("grpo", "Flow-GRPO", {**LONG, "rl.algorithm": "grpo"}),
    Run("winners", "supervised on winners", {**LONG, **ALONE, "rl.algorithm": "winners"}),
    Run("dpo", "masked Diffusion-DPO", {**LONG, **ALONE, "rl.algorithm": "dpo"}),
    Run("dpo-30", "with β 30 and a larger rate", {**LONG, **ALONE, **DPO_30}),
    Run("dpo-targets", "and flow matching on targets", {**LONG, **DPO_TARGETS}),
)


def fields_of(run: Run, seed: int) -> dict[str, Any]:
    """What differs from the config: dotted field -> value."""
    return {"rl.keep_every": KEEP_EVERY, **run.overrides, "seed": seed}


def settled(run: Run, config: str, seed: int) -> ConfigDict:
    """The config of a run.

    Raises:
      ValueError: an override is not a field of the config, or has another type than its value.
    """
    settings = load_config(config)
    known = flatten_config(settings, "")
    for name, value in fields_of(run, seed).items():
        if f".{name}" not in known:
            raise ValueError(f"{run.name}: {name} is not a field of {config}")
        *sections, field = name.split(".")
        section = settings
        for one in sections:
            section = section[one]
        try:
            section[field] = value
        except TypeError as error:
            raise ValueError(f"{run.name}: {name}={value!r}: {error}") from error
    return settings


def read_grid(path: Path) -> tuple[Run, ...]:
    """`GRID` of a Python file.

    Raises:
      ValueError: there is no such file, it has no GRID, or two runs have one name.
    """
    if not path.is_file():
        raise ValueError(f"--grid: there is no file {path}")
    found = GRID if path.samefile(__file__) else runpy.run_path(str(path)).get("GRID")
    if not found:
        raise ValueError(f"--grid: {path} has no GRID")
    names = [run.name for run in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"--grid: {path} has two runs named {min(twice)!r}")
    return tuple(found)


def selected(names: str, grid: Sequence[Run]) -> list[Run]:
    """The runs of these names, separated by commas, in the grid's order; all for "".

    Raises:
      ValueError: there is no such run.
    """
    chosen, known = [name for name in names.split(",") if name], [run.name for run in grid]
    for name in chosen:
        if name not in known:
            raise ValueError(f"--select: no run {name!r}; there are {', '.join(known)}")
    return [run for run in grid if not chosen or run.name in chosen]


def key_of_row(run: Run, config: str, seed: int, scenes: int) -> str:
    """Identifies what a row was measured on: overrides, seed and number of scenes.

    Not the rest of the config, which each version of the package extends: a row names its commit.
    """
    told = json.dumps([FORMAT, config, run.overrides, seed, scenes], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:16]
