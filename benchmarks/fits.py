"""The smallest TPU topology that each large config fits on, as the table of docs/fits.md.

    python benchmarks/fits.py > docs/fits.md

Compiles ahead of time, from the smallest topology of a generation upwards, until a step fits; no
TPU is needed. The batch is the config's, or one sample per data-parallel device where that is
more.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys

CONFIGS = (
    ("flux_fill_dev", "rl"),
    ("flux_fill_dev_dynamic", "rl"),
    ("qwen2_5_vl_7b_reward", "reward"),
    ("flux_fill_dev", "candidates"),
)
BATCHES = {"rl": 8, "reward": 16, "candidates": 64}

TOPOLOGIES = {
    "v5e": ("2x2", "2x4", "4x4", "4x8", "8x8"),
    "v6e": ("2x2", "2x4", "4x4", "4x8", "8x8"),
    "v5p": ("2x2x1", "2x2x2", "2x2x4", "2x4x4"),
}

MOST_TENSOR = 4
"""The judge has four key-value heads."""

HEAD = """# What fits where

Made by `python benchmarks/fits.py`, which compiles each step ahead of time at the sizes of the
published models (1024x1024 pixels, FLUX.1-Fill-dev, Qwen2.5-VL-7B-Instruct): nothing here has run
on these chips. The smallest topology of 4, 8, 16, 32 or 64 chips that the compiler finds room on;
memory per device; *step s* is the roofline's
bound from below, *MFU* what it would mean.

| config | stage | topology | fsdp x tensor | batch | peak GiB | of GiB | TFLOP | step s | MFU |
|---|---|---|---|---|---|---|---|---|---|"""


def mesh_of(devices: int, batch_size: int) -> tuple[int, int]:
    """(fsdp, tensor): no more data-parallel devices than samples, as far as heads allow."""
    tensor = min(MOST_TENSOR, math.ceil(devices / batch_size))
    return devices // tensor, tensor


def report_of(config: str, stage: str, topology: str) -> dict | None:
    """The JSON of `train_compile`; None when the step does not fit."""
    devices = math.prod(map(int, topology.partition(":")[2].split("x")))
    fsdp, tensor = mesh_of(devices, BATCHES[stage])
    command = [
        *(sys.executable, "-m", "onereward_jax.train_compile", "--json"),
        f"--config=configs/{config}.py",
        f"--stage={stage}",
        f"--topology={topology}",
        f"--config.mesh.fsdp={fsdp}",
        f"--config.mesh.tensor={tensor}",
        f"--config.{stage}.batch_size={max(BATCHES[stage], fsdp)}",
    ]
    outcome = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if outcome.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(command)} failed")
    report = json.loads(outcome.stdout)
    return report if report["fits"] else None


def row(config: str, report: dict) -> str:
    """A line of the table."""
    mesh, gib = report["mesh"], 2**30
    cells = (
        f"`{config}`",
        report["stage"],
        report["topology"],
        f"{mesh['fsdp']} x {mesh['tensor']}",
        str(report["batch_size"]),
        f"{report['memory']['peak'] / gib:.1f}",
        f"{report['capacity'] / gib:.1f}",
        f"{report['flops'] / 1e12:,.0f}",
        f"{report['step_seconds']:.1f}",
        f"{report['mfu']:.0%}",
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Prints the page, row by row."""
    print(HEAD, flush=True)
    for config, stage in CONFIGS:
        for generation, shapes in TOPOLOGIES.items():
            reports = (report_of(config, stage, f"{generation}:{shape}") for shape in shapes)
            found = next((report for report in reports if report), None)
            if found is None:
                largest = f"{generation}:{shapes[-1]}"
                print(f"| `{config}` | {stage} | none up to {largest} |" + " |" * 7, flush=True)
            else:
                print(row(config, found), flush=True)


if __name__ == "__main__":
    main()
