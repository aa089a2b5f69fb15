"""Provenance of a report: editors, judges, data and run."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

from onereward_jax.annotation.agreement import ONE_AGAINST_OTHERS
from onereward_jax.chain.saved_command import FILE as COMMAND
from onereward_jax.chain.saved_command import read_command
from onereward_jax.chain.stage import StageContext
from onereward_jax.chain.stage_record import read_record
from onereward_jax.evaluation.judge_calibration import Share
from onereward_jax.evaluation.report import Agreed
from onereward_jax.stages.make_reward import JUDGE, needs_judge
from onereward_jax.tasks import Dimension, Task

WEIGHTS = {"policy": "its last weights", "ema": "the moving average of its weights (EMA)"}
"""config.evaluate.weights -> description."""


def about(context: StageContext) -> dict[str, str]:
    """Name -> value, for the head of the report."""
    config = context.config
    transformer = config.models.transformer
    lora = f", LoRA of rank {config.rl.lora.rank}" if config.rl.lora.rank else ""
    judge = config.models.judge
    data = config.data.source + (f": {config.data.path}" if config.data.path else "")
    facts = {
        "base": config.models.editor,
        "policy": (
            f"{WEIGHTS[config.evaluate.weights]} after {_steps(context)} steps of rl "
            f"(algorithm {config.rl.algorithm}{lora})"
        ),
        "judge trained against": f"{judge}, after {config.reward.steps} steps of reward",
        "reward": "" if config.rl.reward == JUDGE else config.rl.reward,
        "held-out judge": config.evaluate.judge,
        "data": data,
        "work folder": str(context.workdir.absolute()),
        "config": _config_name(context.workdir),
        "seed": str(config.seed),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    if not needs_judge(config):
        del facts["judge trained against"]
    if transformer:
        facts["base"] += f", with the transformer of {transformer}"
    return {name: value for name, value in facts.items() if value}


def _steps(context: StageContext) -> int:
    record = read_record(context.output("rl"))
    return record.results.get("steps", context.config.rl.steps) if record else 0


def _config_name(workdir: Path) -> str:
    """The config file with variant and overrides; "" if the run has no saved command."""
    if not (workdir / COMMAND).is_file():
        return ""
    command = read_command(workdir)
    return " ".join((Path(command.config).name, *command.overrides))


def read_agreement(path: Path) -> dict[tuple[Task, Dimension], Agreed]:
    """Annotator agreement from the stage `annotate`; {} if it was not measured."""
    if not path.is_file():
        return {}
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return {
        (Task(cell["task"]), Dimension(cell["dimension"])): Agreed(
            cell["annotators"],
            cell["triplets"],
            cell["rate"],
            cell["alpha"],
            Share(**cell[ONE_AGAINST_OTHERS]) if cell[ONE_AGAINST_OTHERS] else None,
        )
        for cell in cells
        if cell["triplets"]
    }
