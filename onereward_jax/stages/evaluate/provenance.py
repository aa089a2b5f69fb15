"""Which editors and judges a report is about, and from which run, in words."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

from onereward_jax.chain.saved_command import FILE as COMMAND
from onereward_jax.chain.saved_command import read_command
from onereward_jax.chain.stage import StageContext
from onereward_jax.chain.stage_record import read_record
from onereward_jax.evaluation.report import Agreed
from onereward_jax.stages.reward_plugin import needs_judge
from onereward_jax.tasks import Dimension, Task

WEIGHTS = {"policy": "its last weights", "ema": "the moving average of its weights (EMA)"}
"""config.evaluate.weights -> what it is."""


def about(context: StageContext) -> dict[str, str]:
    """Name -> value, as they stand at the top of the report."""
    config = context.config
    transformer = config.models.transformer
    lora = f", LoRA of rank {config.rl.lora.rank}" if config.rl.lora.rank else ""
    judge = config.models.judge
    data = config.data.source + (f": {config.data.path}" if config.data.path else "")
    told = {
        "base": config.models.editor,
        "policy": (
            f"{WEIGHTS[config.evaluate.weights]} after {_steps(context)} steps of rl "
            f"({config.rl.algorithm} reference{lora})"
        ),
        "judge trained against": f"{judge}, after {config.reward.steps} steps of reward",
        "reward": "" if needs_judge(config) else config.rl.reward,
        "held-out judge": config.evaluate.judge,
        "data": data,
        "work folder": str(context.workdir.absolute()),
        "config": _config_name(context.workdir),
        "seed": str(config.seed),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    if not needs_judge(config):
        del told["judge trained against"]
    if transformer:
        told["base"] += f", with the transformer of {transformer}"
    return {name: value for name, value in told.items() if value}


def _steps(context: StageContext) -> int:
    record = read_record(context.output("rl"))
    return record.results.get("steps", context.config.rl.steps) if record else 0


def _config_name(workdir: Path) -> str:
    """The config file with its variant and what was set by hand, as far as the run kept it."""
    if not (workdir / COMMAND).is_file():
        return ""
    command = read_command(workdir)
    return " ".join((Path(command.config).name, *command.overrides))


def read_agreement(path: Path) -> dict[tuple[Task, Dimension], Agreed]:
    """What the stage `annotate` found of how far people agree; {} where it did not measure it."""
    if not path.is_file():
        return {}
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return {
        (Task(cell["task"]), Dimension(cell["dimension"])): Agreed(
            cell["annotators"], cell["triplets"], cell["rate"], cell["fleiss_kappa"]
        )
        for cell in cells
        if cell["triplets"]
    }
