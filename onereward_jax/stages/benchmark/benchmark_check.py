"""Checks of the stage before the chain starts."""

from __future__ import annotations

from onereward_jax.chain.stage import StageContext
from onereward_jax.convert import resolve_weights
from onereward_jax.convert.lpips_file import read_lpips
from onereward_jax.data.aspect_buckets import MULTIPLE
from onereward_jax.data.benchmark_folders import Benchmark, read_benchmark, split_part
from onereward_jax.stages.benchmark.judge_kind import judge_folders
from onereward_jax.stages.benchmark.metric_kinds import LPIPS, clip_kind
from onereward_jax.stages.benchmark_inputs import FOLDERS, OWN, compared_editors, named_folders
from onereward_jax.stages.evaluate.judge_verdicts import open_judge
from onereward_jax.stages.rl_settings import judge_options
from onereward_jax.storage import local_path


def check(context: StageContext) -> None:
    """Reads the rows of all benchmarks, and the headers of all weights.

    Raises:
      FileNotFoundError, ValueError: a folder or file is missing or damaged, rows are bad (all are
        listed, with file and line), or two editors have a name.
    """
    benchmarks = read_benchmarks(context)
    compared_editors(context.config)
    if name := context.config.benchmark.lpips:
        try:
            read_lpips(resolve_weights(name, LPIPS))
        except (FileNotFoundError, ValueError) as error:
            raise type(error)(f"{LPIPS}: {error}") from error
    try:
        clip_kind(context)
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"config.benchmark.clip: {error}") from error
    size = benchmarks[0].rows[0].size[::-1]
    for metric, (folder, _) in judge_folders(context).items():
        if folder is not None and not (metric == "judge" and context.config.benchmark.judge == OWN):
            open_judge(folder, size, judge_options(context.config), f"the judge {folder}")


def read_benchmarks(context: StageContext) -> list[Benchmark]:
    """The benchmarks of the config.

    Raises:
      FileNotFoundError, ValueError: as `read_benchmark`, or a row is too small to be edited.
    """
    config, found = context.config.benchmark, []
    for name, text in named_folders(context.config).items():
        folder, part = split_part(text)
        try:
            one = read_benchmark(
                name,
                local_path(folder, again=False),
                part,
                longest_side=config.longest_side,
                count=config.rows,
            )
        except (FileNotFoundError, ValueError) as error:
            raise type(error)(f"{FOLDERS}: {error}") from error
        for row in one.rows:
            if min(row.size) < MULTIPLE:
                width, height = row.size
                raise ValueError(
                    f"{FOLDERS}: {folder}, {row.place}: a picture of {width}x{height} is too small "
                    f"to be edited: both sides need at least {MULTIPLE}"
                )
        found.append(one)
    return found
