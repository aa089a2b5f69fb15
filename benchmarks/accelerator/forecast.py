"""What `train_compile` foretells for the programs of real_rl, real_parts and real_judge.

    python benchmarks/accelerator/forecast.py --out=results

Needs the CUDA plugin, but no GPU. Not a part of accelerator.sh: run it anywhere.
"""

from __future__ import annotations

import jax

jax.config.update("jax_platforms", "cpu")

from real_judge import RANK
from real_sizes import experiment
from results import Results

from onereward_jax.parallel import make_mesh
from onereward_jax.train_compile.programs import make_program
from onereward_jax.train_compile.report import compile_report
from onereward_jax.train_compile.topology import Topology

TOPOLOGY = "h100:1x1"


def main() -> None:
    """Writes a line per program."""
    results = Results("forecast", __doc__)
    config, topology = experiment(results.tiny), Topology.named(TOPOLOGY)
    config.reward.lora.update(rank=4 if results.tiny else RANK, alpha=float(RANK))
    mesh = make_mesh(1, 1, 1, devices=topology.devices())
    for stage in ("rl", "candidates", "reward"):
        report = compile_report(make_program(config, stage, mesh), stage, topology, mesh)
        results.add(stage, **report.to_dict())
    results.add("complete")


if __name__ == "__main__":
    main()
