"""The benchmark folders of a config, read."""

from __future__ import annotations

from ml_collections import FrozenConfigDict

from onereward_jax.data.aspect_buckets import MULTIPLE
from onereward_jax.data.benchmark_folders import Benchmark, read_benchmark, split_part
from onereward_jax.stages.benchmark_inputs import FOLDERS, named_folders
from onereward_jax.storage import local_path


def read_benchmarks(config: FrozenConfigDict) -> list[Benchmark]:
    """The benchmarks of the config.

    Raises:
      FileNotFoundError, ValueError: as `read_benchmark`, or a row is too small to be edited.
    """
    found = []
    for name, text in named_folders(config).items():
        folder, part = split_part(text)
        try:
            one = read_benchmark(
                name,
                local_path(folder, again=False),
                part,
                longest_side=config.benchmark.longest_side,
                count=config.benchmark.rows,
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
