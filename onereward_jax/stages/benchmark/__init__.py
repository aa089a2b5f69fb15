"""Stage `benchmark`: editors on benchmark folders, by what the field measures.

pictures/<editor>/<benchmark>/<row>.png    the edits made here, with edit_record.jsonl
measured.jsonl      what was measured of each picture, kept between runs
rows.jsonl          the same by row, with what was not measured and why
table.csv, table.md means with intervals
index.html          tables and pictures
"""

from onereward_jax.stages.benchmark.benchmark_check import check
from onereward_jax.stages.benchmark.benchmark_run import run

__all__ = ["check", "run"]
