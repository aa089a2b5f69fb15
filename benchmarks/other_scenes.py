"""Good - Bad of a finished mini run on new scenes that were not used to choose its settings.

    python benchmarks/other_scenes.py runs/mini [--config=configs/mini.py] [--seed=1]

Draws twice as many scenes as the stage `evaluate` of the config, from the same held-out
photographs, and compares the run's editor with its base on them. Writes scenes and report into
<workdir>/other_scenes; the report is in evaluate/report.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from onereward_jax.chain.runner import run_chain
from onereward_jax.chain.stage_record import COMPLETE, read_record
from onereward_jax.common.config_files import load_config
from onereward_jax.parallel import make_mesh
from onereward_jax.stages.registry import STAGES

MORE = 2
"""Times as many scenes."""

TRAIN = 1
"""Scenes of the training split, which are not used."""

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("workdir", type=Path, help="of a run whose stage rl is complete")
parser.add_argument("--config", default="configs/mini.py", help="of that run")
parser.add_argument("--seed", type=int, default=1, help="of the scenes; not that of the run")
ARGUMENTS = parser.parse_args()


def main() -> None:
    """Draws, embeds, compares; prints what came of it."""
    config = load_config(ARGUMENTS.config)
    if ARGUMENTS.seed == config.seed:
        raise SystemExit(f"error: --seed={config.seed} is the run's own: choose another")
    config.seed = ARGUMENTS.seed
    config.stages = ("data", "embed", "evaluate")
    for task, count in config.evaluate.triplets.items():
        config.mini.train[task] = TRAIN
        config.mini.test[task] = config.evaluate.triplets[task] = MORE * count
    folder = ARGUMENTS.workdir / "other_scenes"
    for trained in ("reward", "rl"):
        record = read_record(ARGUMENTS.workdir / trained)
        if record is None or record.status != COMPLETE:
            raise SystemExit(f"error: the stage {trained} in {ARGUMENTS.workdir} is not done")
        folder.mkdir(exist_ok=True)
        if not (folder / trained).exists():
            (folder / trained).symlink_to(Path("..") / trained)
    *_, compared = run_chain(config, folder, make_mesh(**config.mesh), STAGES)
    for name, value in compared.record.results.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
