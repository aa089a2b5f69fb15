"""The mini world's step and the same step in torch, on the accelerator: seconds of each.

    python benchmarks/accelerator/mini.py --out=results

Runs `benchmarks/rl_step.py` and `benchmarks/rl_step_torch.py`.
"""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

from results import Results

FOLDER = pathlib.Path(__file__).parents[1]
STEP = re.compile(r"(\d+) dimension\(s\): ([\d.]+) s a step(?:, compiled in ([\d.]+) s)?")
COMMANDS = {
    "jax": ("rl_step.py", "--dimensions", "4", "--no-parts"),
    "torch": ("rl_step_torch.py",),
}


def main() -> None:
    """Writes the lines of the part; a program that fails ends it."""
    results = Results("mini", __doc__)
    for name, (file, *options) in COMMANDS.items():
        repeats = "1" if results.tiny else "20"
        if name == "torch" and not results.tiny:
            options.append("--device=cuda")
        command = [sys.executable, str(FOLDER / file), "--repeats", repeats, *options]
        text = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        print(text, flush=True)
        for dimensions, seconds, compiling in STEP.findall(text):
            results.add(
                name,
                dimensions=int(dimensions),
                seconds=float(seconds),
                compile_seconds=float(compiling) if compiling else None,
                machine=text.splitlines()[0],
            )
    results.add("complete")


if __name__ == "__main__":
    main()
