"""The smallest topology of each chip generation that each large config fits on: docs/fits.md.

    python benchmarks/fits.py > docs/fits.md

Compiles ahead of time, without a TPU or GPU. Needs the extras `tpu` and `cuda`, each in its own
environment: pass the names of TPU rows in one and of GPU rows in the other. Results are stored in
benchmarks/fits.jsonl. An interrupted run resumes, and stored results are not compiled again: delete
the lines that a change has made outdated. Lines without `version` are shown, and marked, if no
newer one exists. Arguments name rows, as in `flux_fill_dev/rl/v5p`; `none` compiles nothing. Rows
that were never compiled are listed as missing.
"""

from __future__ import annotations

import json
import math
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = pathlib.Path(__file__).with_suffix(".jsonl")

TOPOLOGIES = {
    "v5p": ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4"),
    "v6e": ("2x2", "2x4", "4x4", "4x8", "8x8"),
    "v5e": ("2x2", "2x4", "4x4", "4x8", "8x8"),
    "h100": ("1x8", "2x8", "4x8", "8x8"),
}
"""Four to 64 chips; for GPUs, one to eight hosts of eight."""

GUESSES = {
    ("flux_fill_dev", "rl"): {"v5p": 1, "v6e": 2, "v5e": 3, "h100": 0},
    ("flux_fill_dev_dynamic", "rl"): {"v5p": 1, "v6e": 2, "v5e": 3, "h100": 0},
    ("flux_fill_dev_lora", "rl"): {"v5p": 0, "v6e": 0, "v5e": 1, "h100": 0},
    ("qwen2_5_vl_7b_reward", "reward"): {"v5p": 0, "v6e": 1, "v5e": 2, "h100": 0},
    ("flux_fill_dev", "candidates"): {"v5p": 0, "v6e": 0, "v5e": 1, "h100": 0},
}
"""Row -> index into `TOPOLOGIES` at which the search starts."""

VERSION = 2
"""Version of the compiled programs. 2: `rl` uses the config's guidance, `candidates` bfloat16."""

CHANGED = ("rl", "candidates")
"""Stages whose programs differ between versions."""

BATCHES = {"rl": 8, "reward": 16, "candidates": 1}
"""Minimum batch size; for trained stages that of the configs."""

MOST_TENSOR = 4
"""Largest `tensor` axis: the judge has four key-value heads."""

LEAST_TENSOR = {"rl": 2, "reward": 1, "candidates": 1}
"""Smallest `tensor` axis, which shards image rows in the VAE: its gradient takes gigabytes."""

HEAD = """# What fits where

Made by `python benchmarks/fits.py`, which compiles each step ahead of time at the sizes of the
published models (1024x1024 pixels, FLUX.1-Fill-dev, Qwen2.5-VL-7B-Instruct). No row has run
on these chips.

On one H100 80GB, with one sample and adapters (`flux_fill_dev_lora` with the config's guidance, 40
steps, rollout of 35; `reward` with an adapter), the forecast was checked ([figures](gpu.md)). Peak
memory was as forecast within 0.2 %: 56.85 GB forecast and 56.87 GB measured for `rl`, 21.99 and
22.03 GB for `reward`. The step is a lower bound, as stated below: 12.1 s forecast and 25.0 to
29.4 s measured for `rl`, 0.26 s and 0.43 to 0.45 s for `reward`. To plan time, multiply it by
the MFU in the table and divide by 0.40 to 0.47, the MFU measured for `rl` (0.41 for `reward`).
Nothing was measured on several GPUs or on TPUs.

Each row is the smallest topology of 4, 8, 16, 32 or 64 chips (for H100s 8 to 64, in hosts of eight)
on which the compiler finds enough memory, with a microbatch of one sample per device;
`microbatches` accumulates them to the config's batch.

- *Mesh* is fsdp x tensor.
- *GiB* is peak memory per device, *of* the memory available; *TFLOP* counts operations per device
  and step.
- *step s* is the lower bound of the roofline, and *MFU* the utilisation at that bound.
- *smaller* is the memory per device that the next smaller topology would need.

Rows marked † are older. For `rl` they have a policy without true guidance
(`--config.rl.policy_true_cfg_scale=1 --config.rl.prediction_true_cfg_scale=1`); the config's
guidance, 4 for policy and reference, takes 1.32 times the operations. For `candidates` they have
float32 weights; weights are now held in the compute dtype. With the config's guidance
`flux_fill_dev` took 79.3 GiB and 23,833 TFLOP on v5p:2x2x1, 20.9 GiB and 5,958 TFLOP on v6e:4x4,
and did not fit on v6e:2x4.

*Saving* is the memory per device while the trained models are written: the models and one gathered
layer, but no optimizer moments. Compiled separately from the steps:

- `rl` of `flux_fill_dev`: 4.1 GiB on v5e:4x8, 8.0 on v6e:4x4 and 31.8 on v5p:2x2x1;
- `reward` of `qwen2_5_vl_7b_reward`: 2.0 on v5e:4x4, 3.9 on v6e:2x4 and 8.2 on v5p:2x2x1.

The layer takes 54 to 67 MiB of that, for the judge on v5p:2x2x1 520 MiB. `evaluate` of
`flux_fill_dev`, with its batch of 64, takes 6.9 GiB for edits and 2.3 for the judge on v5e:4x8.

| config | stage | topology | mesh | batch | GiB | of | saving | TFLOP | step s | MFU | smaller |
|---|---|---|---|---|---|---|---|---|---|---|---|"""


def main(wanted: list[str]) -> None:
    """Compiles missing results of the named rows (default: all), then prints the page."""
    rows = {f"{config}/{stage}/{name}": (config, stage, name) for config, stage, name in all_rows()}
    unknown = [name for name in wanted if name not in rows and name != "none"]
    if unknown:
        raise SystemExit(
            f"there is no row {unknown[0]!r}: choose none or some of {', '.join(rows)}"
        )
    for name, asked in rows.items():
        if not wanted or name in wanted:
            measure(*asked)
    print(HEAD)
    for asked in rows.values():
        print(row(*asked))


def all_rows() -> list[tuple[str, str, str]]:
    """(config, stage, generation) in the order of the table."""
    return [(config, stage, name) for config, stage in GUESSES for name in TOPOLOGIES]


def measure(config: str, stage: str, generation: str) -> None:
    """Compiles from the guess on: smaller topologies while they fit, larger ones until one fits."""
    shapes = TOPOLOGIES[generation]
    at = GUESSES[config, stage][generation]
    step = -1 if report_of(config, stage, f"{generation}:{shapes[at]}")["fits"] else 1
    for shape in shapes[at + step :: step] if at + step >= 0 else ():
        if report_of(config, stage, f"{generation}:{shape}")["fits"] == (step > 0):
            break


def report_of(config: str, stage: str, topology: str) -> dict:
    """The JSON of `train_compile`, stored or compiled now."""
    found = results().get((config, stage, topology))
    if found is not None and not outdated(found):
        return found
    devices = math.prod(map(int, topology.partition(":")[2].split("x")))
    fields = fields_of(stage, devices)
    command = [
        *(sys.executable, "-m", "onereward_jax.train_compile", "--json"),
        f"--config=configs/{config}.py",
        f"--stage={stage}",
        f"--topology={topology}",
        *(f"--config.{name}={value}" for name, value in fields.items()),
    ]
    print(" ".join(command[1:]), file=sys.stderr, flush=True)
    outcome = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, cwd=ROOT)
    if outcome.returncode not in (0, 1) or not outcome.stdout:
        raise SystemExit(f"{' '.join(command)} failed")
    found = json.loads(outcome.stdout)["compiled"]
    others = [{name: one[name] for name in ("stage", "fits", "batch_size")} for one in found[1:]]
    report = {"config": config, "version": VERSION, **found[0], "others": others}
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(report) + "\n")
    return report


def fields_of(stage: str, devices: int) -> dict[str, int]:
    """Mesh and batch: at most one data-parallel device per sample, as far as heads allow."""
    batch_size = BATCHES[stage]
    learns = stage != "candidates"
    tensor = min(MOST_TENSOR, math.ceil(devices / batch_size)) if learns else 1
    tensor = max(tensor, LEAST_TENSOR[stage])
    fsdp = devices // tensor
    fields = {"mesh.fsdp": fsdp, "mesh.tensor": tensor}
    fields[f"{stage}.batch_size"] = max(batch_size, fsdp)
    if learns:
        fields[f"{stage}.microbatches"] = max(batch_size // fsdp, 1)
    return fields


def outdated(report: dict) -> bool:
    """Whether a stored result is older than `VERSION`."""
    return report["stage"] in CHANGED and report.get("version", 1) < VERSION


def results() -> dict[tuple[str, str, str], dict]:
    """(config, stage, topology) -> its last report."""
    if not RESULTS.exists():
        return {}
    reports = map(json.loads, RESULTS.read_text(encoding="utf-8").splitlines())
    return {(report["config"], report["stage"], report["topology"]): report for report in reports}


def row(config: str, stage: str, generation: str) -> str:
    """A line of the table."""
    gib, known = 2**30, results()
    shapes = TOPOLOGIES[generation]
    reports = [known.get((config, stage, f"{generation}:{shape}")) for shape in shapes]
    at = next((at for at, report in enumerate(reports) if report and report["fits"]), None)
    if at is None:
        tried = [report["topology"] for report in reports if report]
        said = f"none up to {tried[-1]}" if tried else f"{generation}: not compiled yet"
        return f"| `{config}` | {stage} | {said} |" + " |" * 9
    report, smaller = reports[at], reports[at - 1] if at else None
    if smaller:
        mark = " †" if outdated(smaller) else ""
        below = f"{smaller['shortage']['needed'] / gib:.1f} GiB{mark}"
    else:
        below = "not compiled yet" if at else "is not listed"
    mesh, saving = report["mesh"], ""
    if report.get("saving"):
        saving = f"{(report['saving']['stays'] + report['saving']['beside']) / gib:.1f}"
    cells = (
        f"`{config}`",
        report["stage"] + (" †" if outdated(report) else ""),
        report["topology"],
        f"{mesh['fsdp']} x {mesh['tensor']}",
        str(report["batch_size"]),
        f"{report['memory']['peak'] / gib:.1f}",
        f"{report['capacity'] / gib:.1f}",
        saving,
        f"{report['flops'] / 1e12:,.0f}",
        f"{report['step_seconds']:.1f}",
        f"{report['mfu']:.0%}",
        below,
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main(sys.argv[1:])
