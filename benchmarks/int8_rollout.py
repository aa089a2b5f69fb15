"""What sampling in int8 changes: pixels, and the judge's answers about them.

    python benchmarks/int8_rollout.py [--scenes 8] [--steps 8] [--judge runs/mini/reward/judge]

Edits new scenes of the mini world with the packaged editor, each with two noises, in full precision
and with int8 products as in `config.rl.rollout_int8`; for scale, also in full precision with other
numbers of steps, and with fewer or more layers in int8. Prints

- pixels: differences inside the mask from the full-precision pictures of the same noise, in levels
  of 255: of a picture, the mean of absolute differences and the largest one; mean and largest over
  pictures;
- P("Yes"): the judge compares the picture of the first noise with that of the second, as it does
  policy and reference in `rl`, in all dimensions of the task. Its change is from the answers about
  the full-precision pictures; "other side" counts those that cross 1/2.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np
from absl import logging

from onereward_jax import Editor, Judge
from onereward_jax.mini.scene_source import MiniWorldSource
from onereward_jax.models.flux import INT8_LAYERS
from onereward_jax.models.int8 import quantize
from onereward_jax.tasks import DIMENSIONS, PAPER_TASKS

ALSO = {
    "int8, without modulations": r"(single_)?transformer_blocks/(?!norm)",
    "int8, all linear layers": "",
}
"""Row -> layers to quantise, beside those of the package."""

BATCH = 32


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=8, help="per task, four tasks")
    parser.add_argument("--steps", type=int, default=8, help="those of configs/mini.py")
    parser.add_argument("--others", type=int, nargs="+", default=[16, 7], help="for scale")
    parser.add_argument("--judge", default="mini/models/judge", help="folder")
    parser.add_argument("--seed", type=int, default=1, help="of scenes and noise; mini runs have 0")
    given = parser.parse_args()
    logging.set_verbosity(logging.ERROR)  # large masks are meant
    counts = {"test": dict.fromkeys(PAPER_TASKS, given.scenes), "train": {}}
    scenes = list(MiniWorldSource(counts, seed=given.seed).examples("test"))
    editor, judge = Editor.from_pretrained("mini/models/editor"), Judge.from_pretrained(given.judge)
    full = editor.params

    def pictures(steps: int, layers: str | None = None) -> np.ndarray:
        weights = full.transformer if layers is None else quantize(full.transformer, layers)
        editor.params = full._replace(transformer=weights)
        return np.stack([painted(editor, scenes, given.seed + noise, steps) for noise in (0, 1000)])

    exact = pictures(given.steps)
    answers = asked(judge, scenes, exact)
    print(f"{exact[:, :, 0, 0, 0].size} pictures, {answers.size} answers")
    print('| | pixels: mean | largest mean | largest | P("Yes"): mean | largest | other side |')
    print("|---|---|---|---|---|---|---|")

    def row(title: str, found: np.ndarray) -> None:
        inside = [scene.mask > 0 for scene in scenes]
        apart = 255 * np.abs(found - exact)
        means = [one[area].mean() for noise in apart for one, area in zip(noise, inside)]
        most = max(one[area].max() for noise in apart for one, area in zip(noise, inside))
        other = asked(judge, scenes, found)
        change, crossed = np.abs(other - answers), np.mean((other > 0.5) != (answers > 0.5))
        numbers = f"{np.mean(means):.2f} | {np.max(means):.2f} | {most:.0f}"
        told = f"{change.mean():.4f} | {change.max():.4f} | {crossed:.1%}"
        print(f"| {title} | {numbers} | {told} |", flush=True)

    row("int8", pictures(given.steps, INT8_LAYERS))
    for steps in given.others:
        row(f"{steps} steps", pictures(steps))
    for title, layers in ALSO.items():
        row(title, pictures(given.steps, layers))


def painted(editor: Editor, scenes: list, seed: int, steps: int) -> np.ndarray:
    """Pictures of all scenes, [b, h, w, 3] in [0, 1]."""
    parts = [
        editor(
            [scene.image for scene in scenes[start : start + BATCH]],
            [scene.mask for scene in scenes[start : start + BATCH]],
            [scene.prompt for scene in scenes[start : start + BATCH]],
            seed=[seed + start + number for number in range(len(scenes[start : start + BATCH]))],
            num_inference_steps=steps,
            output_type="np",
        )
        for start in range(0, len(scenes), BATCH)
    ]
    return np.concatenate(parts)


def asked(judge: Judge, scenes: list, both: np.ndarray) -> np.ndarray:
    """P("Yes") of the picture of the first noise against that of the second, per dimension."""
    cases = [
        (number, scene, one)
        for number, scene in enumerate(scenes)
        for one in DIMENSIONS[scene.task]
    ]
    found = []
    for start in range(0, len(cases), BATCH):
        part = cases[start : start + BATCH]
        found.append(
            judge.score(
                *([pictures[number] for number, _, _ in part] for pictures in both),
                task=[scene.task.value for _, scene, _ in part],
                dimension=[dimension.value for _, _, dimension in part],
                prompt=[scene.prompt for _, scene, _ in part],
                masks=[scene.mask for _, scene, _ in part],
                sources=[scene.image for _, scene, _ in part],
            )
        )
    return np.concatenate(found)


if __name__ == "__main__":
    main()
