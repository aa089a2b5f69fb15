"""How close few sampling steps come to many, with Euler's steps and with those of "ab2".

    python benchmarks/solver.py [--scenes 4] [--steps 8 16 20 24 40]

Edits new scenes of the mini world with the packaged editor, each with the same noise, and prints
the error inside the mask against 160 steps of "ab2", in levels of 255. The error of a picture is
the mean of absolute differences; mean, median and largest are over pictures. Takes two minutes on
two cores.
"""

from __future__ import annotations

import argparse
from typing import get_args

import numpy as np
from absl import logging

from onereward_jax import Editor
from onereward_jax.mini.scene_source import MiniWorldSource
from onereward_jax.policy.sampler import Solver
from onereward_jax.tasks import PAPER_TASKS

EXACT = 160
"""Steps of the pictures that count as exact."""


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=4, help="per task, four tasks")
    parser.add_argument("--steps", type=int, nargs="+", default=[8, 16, 20, 24, 40])
    parser.add_argument("--seed", type=int, default=1, help="of scenes and noise; mini runs have 0")
    given = parser.parse_args()
    logging.set_verbosity(logging.ERROR)  # large masks are meant
    counts = {"test": dict.fromkeys(PAPER_TASKS, given.scenes), "train": {}}
    scenes = list(MiniWorldSource(counts, seed=given.seed).examples("test"))
    inside = np.stack([scene.mask > 0 for scene in scenes])
    editor = Editor.from_pretrained("mini/models/editor")

    def painted(steps: int, solver: str) -> np.ndarray:
        return editor(
            [scene.image for scene in scenes],
            [scene.mask for scene in scenes],
            [scene.prompt for scene in scenes],
            seed=[given.seed + number for number in range(len(scenes))],
            num_inference_steps=steps,
            solver=solver,
            output_type="np",
        )

    exact = painted(EXACT, "ab2")
    print(f"{len(scenes)} pictures, levels of 255 inside the mask, against {EXACT} steps of ab2")
    print("| solver | steps | mean | median | largest |\n|---|---|---|---|---|")
    for solver in get_args(Solver):
        for steps in given.steps:
            apart = 255 * np.abs(painted(steps, solver) - exact).mean(axis=-1)
            errors = [one[area].mean() for one, area in zip(apart, inside)]
            found = (np.mean(errors), np.median(errors), np.max(errors))
            print(f"| `{solver}` | {steps} | " + " | ".join(f"{one:.2f}" for one in found) + " |")


if __name__ == "__main__":
    main()
