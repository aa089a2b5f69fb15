"""Compares the weights that a run kept with its base, on scenes drawn anew.

The scenes have a seed that no run has, and photographs that no run was trained on. The base's
pictures and their scores are kept with the scenes, and shared by all runs that edit them alike.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evidence_oracle import Mapped, Scores, score_all
from jax.sharding import Mesh
from ml_collections import ConfigDict, FrozenConfigDict

from onereward_jax.chain import run_chain
from onereward_jax.chain.stage import StageContext
from onereward_jax.chain.stage_record import read_record
from onereward_jax.common.atomic_file import atomic_file
from onereward_jax.data.triplets import Triplets
from onereward_jax.mini.oracle import VERSION
from onereward_jax.stages.data import open_triplets
from onereward_jax.stages.evaluate.compared_edits import PICTURES, Pictures, make_edits
from onereward_jax.stages.evaluate.judge_verdicts import judge_preferences
from onereward_jax.stages.guidance_settings import evaluate_guidance
from onereward_jax.stages.registry import STAGES
from onereward_jax.tasks import PAPER_TASKS, TASKS, Dimension, Task

OTHER_SEED = 1000
"""Added to the seed of a run for that of its scenes."""

KEPT = "kept"
"""Folder of the stage rl with the weights of some steps."""


@dataclasses.dataclass(frozen=True)
class Compared:
    """What raters say of the weights of one step, by row of the scenes.

    Attributes:
      step: steps of training.
      tasks: task of each scene.
      oracle: the oracle's scores of policy and base.
      judge: per dimension the probability of the run's judge that the policy's result is better;
        {} without a judge.
    """

    step: int
    tasks: Mapping[int, Task]
    oracle: Mapping[int, tuple[Scores, Scores]]
    judge: Mapping[int, Mapping[Dimension, float]]


def compare(
    config: ConfigDict,
    folder: Path,
    scenes: Path,
    mesh: Mesh,
    *,
    count: int,
    curve: int,
    mapped: Mapped,
) -> list[Compared]:
    """Edits the scenes with the last weights and those of earlier steps, and asks the raters.

    Pictures that exist are not made again.

    Args:
      config: config of the run.
      folder: its work folder, with complete stages reward and rl.
      scenes: folder of all scenes.
      mesh: the device mesh.
      count: scenes per task.
      curve: scenes per task for earlier steps; the first ones.
      mapped: `map` for the oracle.
    """
    drawn = draw_scenes(config, scenes, mesh, count)
    settings = FrozenConfigDict(_evaluated(config, count))
    rounds = rounds_of(folder)
    work = comparison_folder(folder)
    base = drawn / _base_name(config)
    base.mkdir(exist_ok=True)
    for name, target in (
        *((name, drawn / name) for name in ("data", "embed")),
        ("reward", folder / rounds[-1].name.replace("rl", "reward")),
        ("rl", rounds[-1]),
        (f"evaluate/{PICTURES}/base", base),
    ):
        if target.exists():  # not every run has a judge
            _link(work / name, target)
    context = StageContext("evaluate", settings, work, mesh)
    triplets = open_triplets(context, "test")
    rows = _rows(triplets, count)
    few = _rows(triplets, curve)
    ids = triplets.column("id")
    weights = _weights(rounds)
    last = max(weights)
    early = {
        step: Pictures(context.folder / PICTURES / f"{step:06d}", {row: ids[row] for row in few})
        for step in sorted(weights)
        if step < last
    }
    others = [(pictures, weights[step]) for step, pictures in early.items()]
    made, policy = make_edits(context, triplets, rows, others)
    of_base = kept_scores(triplets, made, mapped)
    tasks = {row: TASKS[triplets.tasks[row]] for row in rows}
    judge = context.output("reward") / "judge"
    compared = []
    for step, pictures in {**early, last: policy}.items():
        some = list(pictures.names)
        found = kept_scores(triplets, pictures, mapped)
        says = {}
        if judge.is_dir():
            int8 = config.rl.judge_int8
            both = (Pictures(made.folder, pictures.names), pictures)
            says = judge_preferences(
                context, triplets, some, both, judge, what=f"judge, step {step}", int8=int8
            )
        oracle = {row: (one, of_base[row]) for row, one in found.items()}
        compared.append(Compared(step, {row: tasks[row] for row in some}, oracle, says))
    return compared


def comparison_folder(folder: Path) -> Path:
    """Where a run's comparison is kept; another training has another one."""
    return folder / "evidence" / "-".join(read_record(one).identity for one in rounds_of(folder))


def rounds_of(folder: Path) -> list[Path]:
    """The stage rl of each round: rl, rl-2, ..."""
    found = [folder / "rl"]
    while (later := folder / f"rl-{len(found) + 1}").is_dir():
        found.append(later)
    return found


def _weights(rounds: Sequence[Path]) -> dict[int, Path]:
    """Weights by the number of steps that they were trained for, in all rounds together."""
    weights, before = {}, 0
    for folder in rounds:
        weights |= {before + int(one.name): one for one in (folder / KEPT).glob("[0-9]*")}
        before += read_record(folder).results["steps"]
        weights[before] = folder / "ema"
    return weights


def draw_scenes(config: ConfigDict, scenes: Path, mesh: Mesh, count: int) -> Path:
    """The work folder with `count` new scenes per task for runs of this seed."""
    drawn = _evaluated(config, count)
    drawn.stages = ("data", "embed")
    folder = scenes / f"seed-{drawn.seed}"
    run_chain(drawn, folder, mesh, STAGES)
    return folder


def _evaluated(config: ConfigDict, count: int) -> ConfigDict:
    """The config of the comparison: the run's, on its new scenes."""
    config = copy.deepcopy(config)
    config.seed += OTHER_SEED
    config.rounds = 1  # what is compared is linked to the last round
    for task in PAPER_TASKS:
        config.mini.train[task.value] = 1  # unused
        config.mini.test[task.value] = config.evaluate.triplets[task.value] = count
    return config


def _base_name(config: ConfigDict) -> str:
    """Folder of the base's pictures, named by what they depend on."""
    guidance = evaluate_guidance(FrozenConfigDict(config))
    models = (config.models.editor, config.models.transformer, config.models.paste_back)
    sampling = (config.models.dtype, config.evaluate.num_steps, repr(guidance))
    solver = config.models.solver
    # Pictures made before there were other solvers keep their folder.
    told = json.dumps([*models, *sampling, *([solver] if solver != "euler" else [])])
    return f"base-{hashlib.sha256(told.encode()).hexdigest()[:8]}"


def kept_scores(triplets: Triplets, pictures: Pictures, mapped: Mapped) -> dict[int, Scores]:
    """The oracle's scores of an editor's pictures by row, kept beside them."""
    path = pictures.folder / f"scores-{VERSION}.json"
    known: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    todo = [row for row, name in pictures.names.items() if name not in known]
    found = score_all(((triplets[row], pictures[row]) for row in todo), mapped)
    known |= {pictures.names[row]: one._asdict() for row, one in zip(todo, found, strict=True)}
    if todo:
        with atomic_file(path) as draft:
            draft.write_text(json.dumps(known))
    return {row: _read_scores(known[name]) for row, name in pictures.names.items()}


def _read_scores(kept: Mapping[str, Any]) -> Scores:
    by_dimension = (
        {Dimension(name): value for name, value in kept[part].items()}
        for part in ("scores", "hidden")
    )
    return Scores(*by_dimension, letters=kept["letters"])


def _rows(triplets: Triplets, count: int) -> list[int]:
    """The first `count` scenes of each task."""
    return [int(row) for task in PAPER_TASKS for row in triplets.with_task(task)[:count]]


def _link(link: Path, target: Path) -> None:
    """A symbolic link with an absolute target; replaces another link."""
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_symlink():
        link.unlink()
    link.symlink_to(target.absolute())
