"""Memory of edits of large photographs, and how well their seams close, with the mini editor.

    python benchmarks/large_photograph.py

Prints the peak memory of the command `edit` for photographs of 1 and 24 megapixels with --crop, for
folders of 4-megapixel photographs, and the step of the colours across the border of a mask, with
and without matching them. Takes about five minutes on two cores.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
from PIL import Image, ImageDraw
from skimage import data

from onereward_jax import Editor
from onereward_jax.inference.photograph_edit import (
    Crop,
    EditPlan,
    PhotographEdit,
    edit_batch,
    prepare,
)
from onereward_jax.inference.stitch import stitched
from onereward_jax.pictures import Photograph

MODEL = "mini/models/editor"
STEPS = 2


def main() -> None:
    """Prints the tables."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for size in ((1224, 816), (6000, 4000)):
            for spread in ("one small area", "two far areas, each", "two far areas, together"):
                measure_one(folder, size, spread)
        for count in (10, 100):
            measure_folder(folder / f"{count}", count)
    seams()


def photograph(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """The coffee of scikit-image in this size, with some noise."""
    whole = np.asarray(Image.fromarray(data.coffee()).resize(size, Image.Resampling.BICUBIC))
    noise = np.random.default_rng(seed).integers(-3, 4, (*whole.shape[:2], 1), dtype=np.int16)
    return Image.fromarray(np.clip(whole + noise, 0, 255).astype(np.uint8))


def masked(size: tuple[int, int], spread: str) -> Image.Image:
    """A mask with areas of a twentieth of the width."""
    mask, (width, height), side = Image.new("L", size), size, size[0] // 20
    places = [(width // 2, height // 2)]
    if spread.startswith("two"):
        places = [(width // 8, height // 8), (width * 7 // 8, height * 7 // 8)]
    for x, y in places:
        ImageDraw.Draw(mask).ellipse((x, y, x + side, y + side), 255)
    return mask


def measure_one(folder: pathlib.Path, size: tuple[int, int], spread: str) -> None:
    """One photograph with --crop."""
    photograph(size).save(folder / "photo.jpg", quality=90)
    masked(size, spread).save(folder / "mask.png")
    peak = edit(
        f"--image={folder / 'photo.jpg'}", f"--mask={folder / 'mask.png'}", "--task=remove",
        "--crop", f"--components={'each' if spread.endswith('each') else 'together'}",
        f"--out={folder / 'out.jpg'}",
    )  # fmt: skip
    pixels = size[0] * size[1] / 1e6
    print(f"{pixels:4.0f} megapixels, {spread:24} {peak:6.0f} MiB at most", flush=True)


def measure_folder(folder: pathlib.Path, count: int) -> None:
    """A folder of photographs of 4 megapixels, pasted back."""
    size, rows = (2448, 1632), []
    folder.mkdir()
    masked(size, "one small area").save(folder / "mask.png")
    for number in range(count):
        photograph(size, number).save(folder / f"{number}.jpg", quality=90)
        rows.append({"image": f"{number}.jpg", "mask": "mask.png", "task": "remove"})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    peak = edit(f"--image={folder}", f"--out={folder / 'out'}", "--crop", "--batch_size=2")
    print(f"{count:4} photographs of 4 megapixels       {peak:6.0f} MiB at most", flush=True)


def edit(*options: str) -> float:
    """Peak memory of the command, in MiB."""
    command = [sys.executable, "-m", "onereward_jax.edit", f"--model={MODEL}", f"--steps={STEPS}"]
    with subprocess.Popen(
        [*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        error = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(error.decode())
    return usage.ru_maxrss / 1024


def seams() -> None:
    """Mean difference of neighbours across the border of the edited part, in levels of 255."""
    editor = Editor.from_pretrained(MODEL)
    places = {
        "astronaut": (Image.fromarray(data.astronaut()), (300, 40, 380, 120)),
        "coffee": (Image.fromarray(data.coffee()), (330, 250, 520, 330)),
    }
    for name, (picture, box) in places.items():
        mask = Image.new("L", picture.size)
        ImageDraw.Draw(mask).ellipse(box, 255)
        for feather in (0, 8):
            plan = EditPlan(Crop(), feather, {})
            one = PhotographEdit(Photograph(picture), mask, "remove", 0)
            ready = prepare(one, plan, editor)
            ((area, window),) = ready.windows
            (matched,) = edit_batch(editor, [ready], plan)
            where = area.within(*window.box)
            source = picture.crop(window.box)
            small = source.resize(window.size[::-1], Image.Resampling.LANCZOS)
            small_mask = Image.fromarray(where).convert("L").resize(small.size)
            (edited,) = editor(small, small_mask, "remove", seed=0)
            plain = stitched(source, edited, where, feather)
            before, bare, after = (
                border_step(part, where) for part in (source, plain, matched.crop(window.box))
            )
            print(
                f"{name:10} feather {feather}: source {before:5.1f}, pasted {bare:5.1f}, "
                f"colours matched {after:5.1f}"
            )


def border_step(picture: Image.Image, where: np.ndarray) -> float:
    """Mean absolute difference of the neighbours on both sides of the mask's border."""
    pixels, steps = np.asarray(picture, np.float32), []
    for axis in (0, 1):
        across = np.diff(where.astype(int), axis=axis) != 0
        steps.append(np.abs(np.diff(pixels, axis=axis)).mean(-1)[across])
    return float(np.concatenate(steps).mean())


if __name__ == "__main__":
    main()
