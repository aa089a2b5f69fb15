"""Scenes of the mini world as a benchmark folder, with their targets: rows for --stage=benchmark.

    python benchmarks/benchmark_scenes.py runs/scenes [--count=24] [--seed=1]

The photographs are held out from training. `<folder>-biharmonic` gets the pictures of an editor
from elsewhere: scikit-image's biharmonic inpainting, which knows no prompt.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image
from skimage.restoration import inpaint_biharmonic

from onereward_jax.mini.scene_source import MiniWorldSource
from onereward_jax.tasks import FIXED_PROMPTS, PAPER_TASKS


def main() -> None:
    """Writes both folders."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=24, help="scenes per task")
    parser.add_argument("--seed", type=int, default=1, help="mini runs have 0")
    given = parser.parse_args()
    counts = {"test": dict.fromkeys(PAPER_TASKS, given.count), "train": {}}
    rows = []
    for scene in MiniWorldSource(counts, seed=given.seed).examples("test"):
        name = f"{scene.task.value}-{len(rows):03}"
        row = {"task": scene.task.value, "prompt": quoted(scene)}
        for field in ("image", "mask", "target"):
            row[field] = f"{field}s/{name}.png"
            save(given.folder / row[field], getattr(scene, field))
        rows.append({key: value for key, value in row.items() if value})
        filled = inpaint_biharmonic(scene.image, scene.mask > 0, channel_axis=-1)
        other = given.folder.with_name(f"{given.folder.name}-biharmonic")
        save(other / row["image"], np.round(np.clip(filled, 0, 1) * 255).astype(np.uint8))
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (given.folder / "metadata.jsonl").write_text(lines)
    print(f"{given.folder}: {len(rows)} rows")


def quoted(scene) -> str:
    """The prompt; "" for the fixed one of a task."""
    return "" if scene.prompt == FIXED_PROMPTS.get(scene.task) else scene.prompt


def save(path: Path, pixels: np.ndarray) -> None:
    """Writes a picture into a folder that may not exist yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


if __name__ == "__main__":
    main()
