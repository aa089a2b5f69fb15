"""Good - Bad of a finished mini run on new scenes that were not used to choose its settings.

    python benchmarks/other_scenes.py runs/mini [--scenes=400]

Draws scenes of another seed from the held-out photographs, and compares the run's editor, and the
weights that it kept (`rl.keep_every`), with its base: Good - Bad by the oracle and by the run's
judge, and the oracle's means per dimension. Config and flags are those of the run. Writes scenes
and pictures into <workdir>/evidence, or the scenes into --share, for several runs of one seed. See
benchmarks/evidence.py for many runs, and benchmarks/gallery.py for a page of pictures.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from evidence_compare import compare
from evidence_figures import figures, keep_points, margins_of
from evidence_oracle import in_processes
from evidence_rows import HIDDEN, JUDGE, ORACLE, gain, good_minus_bad, judge_right, letters
from evidence_text import TITLES, percent, table, thousandths
from ml_collections import FrozenConfigDict

from onereward_jax.chain.saved_command import saved_config
from onereward_jax.chain.stage_record import COMPLETE, read_record
from onereward_jax.parallel import make_mesh
from onereward_jax.parallel.cpu_threads import set_cpu_threads
from onereward_jax.stages.training_logs import prepare_logging
from onereward_jax.tasks import DIMENSIONS, PAPER_TASKS


def main() -> None:
    """Draws, compares; prints what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdir", type=Path, help="of a run whose stage rl is complete")
    parser.add_argument("--scenes", type=int, default=400, help="per task")
    parser.add_argument("--curve", type=int, default=100, help="per task, for earlier weights")
    parser.add_argument("--share", type=Path, help="folder of scenes; default: in the work folder")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="of the oracle")
    given = parser.parse_args()
    record = read_record(given.workdir / "rl")
    if record is None or record.status != COMPLETE:
        sys.exit(f"error: the stage rl in {given.workdir} is not done")
    config = saved_config(given.workdir).as_configdict()
    set_cpu_threads()
    prepare_logging(FrozenConfigDict(config))
    scenes = given.share or given.workdir / "evidence"
    with in_processes(given.processes) as mapped:
        compared = compare(
            config,
            given.workdir,
            scenes,
            make_mesh(**config.mesh),
            count=given.scenes,
            curve=min(given.curve, given.scenes),
            mapped=mapped,
        )
    points = [figures(one, **margins_of(config)) for one in compared]
    keep_points(given.workdir, points)
    print(tables([{"points": points}]))


def tables(rows: list[dict]) -> str:
    """Good - Bad by step and rater; the means, the judge and the letters after the last step."""
    steps = [point["step"] for point in rows[0]["points"]]
    lines = [
        [str(step), rater, *(percent(good_minus_bad(rows, rater, task, step)) for task in TITLES)]
        for step in steps
        for rater in (ORACLE, HIDDEN, JUDGE)
    ]
    means = [
        [TITLES[task], dimension.title, thousandths(gain(rows, ORACLE, task, dimension))]
        for task in PAPER_TASKS
        for dimension in DIMENSIONS[task]
    ]
    right = [
        f"{TITLES[task]} {hit:.0f} of {pairs}"
        for task, (hit, pairs) in ((task, judge_right(rows, task)) for task in PAPER_TASKS)
    ]
    return "\n\n".join(
        (
            table(["step", "by", *TITLES.values()], lines),
            table(["task", "dimension", "oracle, policy - base"], means),
            f"judge right on policy against base: {', '.join(right)}",
            f"letters read, % more: {percent(letters(rows))}",
        )
    )


if __name__ == "__main__":
    main()
