"""Checks of the stage before the chain starts."""

from __future__ import annotations

from collections.abc import Callable

from onereward_jax.chain.stage import StageContext
from onereward_jax.convert import resolve_weights
from onereward_jax.convert.lpips_file import read_lpips
from onereward_jax.stages.benchmark.judge_kind import judge_folders
from onereward_jax.stages.benchmark.metric_kinds import CLIP, LPIPS, clip_kind
from onereward_jax.stages.benchmark.read_benchmarks import read_benchmarks
from onereward_jax.stages.benchmark_inputs import OWN, compared_editors
from onereward_jax.stages.evaluate.judge_verdicts import open_judge
from onereward_jax.stages.rl_settings import judge_options


def check(context: StageContext) -> None:
    """Reads the rows of all benchmarks, and the headers of all weights.

    Raises:
      FileNotFoundError, ValueError: a folder or file is missing or damaged, rows are bad (all are
        listed, with file and line), or two editors have a name.
    """
    benchmarks = read_benchmarks(context.config)
    compared_editors(context.config)
    if name := context.config.benchmark.lpips:
        _named(LPIPS, lambda: read_lpips(resolve_weights(name, LPIPS)))
    _named(CLIP, lambda: clip_kind(context))
    size = benchmarks[0].rows[0].size[::-1]
    for metric, (folder, _) in judge_folders(context).items():
        if folder is not None and not (metric == "judge" and context.config.benchmark.judge == OWN):
            open_judge(folder, size, judge_options(context.config), f"the judge {folder}")


def _named(field: str, read: Callable[[], object]) -> None:
    """Reads something, with the config field in its errors."""
    try:
        read()
    except (FileNotFoundError, ValueError) as error:
        if str(error).startswith(field):
            raise
        raise type(error)(f"{field}: {error}") from error
