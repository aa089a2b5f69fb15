"""Cost of the stage `data` and of reading its output, on synthetic photographs of real size.

    python benchmarks/data_scale.py [--count=40] [--side=1024] [--width=1600] [--height=1200]
                                    [--rows=40000] [--folder=...] [--processes 1 2]

Prints seconds per triplet and core of the stage `data`, bytes of records and of photographs,
milliseconds to read a triplet, and seconds to open a data set of `--rows` rows; then runs
`candidates_scale.py`, which prints host and device seconds per batch of the stage `candidates`.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np
from PIL import Image, ImageDraw

from onereward_jax.data.example import SPLITS
from onereward_jax.data.folder_source import FolderSource
from onereward_jax.data.index import Index, Shard
from onereward_jax.data.row_files import METADATA
from onereward_jax.data.shard_writer import NAME, SHARD_ROWS, write_metadata, write_triplets
from onereward_jax.data.tfds_record import features
from onereward_jax.data.triplets import Triplets

QUALITY = 90
"""Quality of the photographs' JPEG files, with subsampled colours, as cameras write them."""

FULL = 40_000
"""Triplets of the run that the figures are extrapolated to."""

READ = 32
"""Triplets to read."""


def photograph(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Octaves of noise with the spectrum of photographs, shapes with edges, sensor noise.

    Args:
      rng: source of all random numbers.
      size: width and height.
    """
    width, height = size
    pixels = np.zeros((height, width, 3), np.float32) + rng.uniform(60, 190, 3)
    side, contrast = 4, 60.0
    while side < max(size):
        shape = (max(2, side * height // width), side)
        grey, colour = rng.standard_normal((*shape, 1)), rng.standard_normal((*shape, 3))
        noise = np.float32(contrast * (grey + 0.35 * colour))
        for channel in range(3):
            octave = Image.fromarray(noise[..., channel])
            pixels[..., channel] += np.asarray(octave.resize(size, Image.BICUBIC))
        side, contrast = 2 * side, 0.6 * contrast
    y, x = np.ogrid[:height, :width]
    for _ in range(12):
        centre, radius = rng.uniform(0, 1, 2) * size, rng.uniform(0.03, 0.25, 2) * size
        inside = ((x - centre[0]) / radius[0]) ** 2 + ((y - centre[1]) / radius[1]) ** 2 < 1
        pixels[inside] = pixels[inside] * rng.uniform(0.3, 0.9) + rng.uniform(0, 140, 3)
    pixels += rng.normal(0, 3.5, (height, width, 1))
    return Image.fromarray(np.uint8(np.clip(pixels, 0, 255)))


def make_folder(folder: Path, count: int, size: tuple[int, int]) -> None:
    """Writes photographs, masks and rows; keeps existing files."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        rng, name = np.random.default_rng(number), f"{number:06d}"
        row = {"image": f"{name}.jpg", "mask": f"{name}-mask.png", "task": "fill"}
        row["split"] = "test" if number % 10 == 0 else "train"
        rows.append(row | {"prompt": f"a red apple on a wooden table in the garden, {number}"})
        if not (folder / row["mask"]).exists():
            photograph(rng, size).save(folder / row["image"], quality=QUALITY)
            corner = rng.uniform(0.1, 0.5, 2) * size
            mask = Image.new("L", size)
            ImageDraw.Draw(mask).ellipse((*corner, *(corner + 0.3 * size[1])), fill=255)
            mask.save(folder / row["mask"])
    (folder / METADATA).write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


def at_training_size(source: FolderSource) -> int:
    """Bytes of the photographs and masks, cropped, scaled and saved in their formats."""
    total = 0
    for row in range(len(source.rows)):
        example = source.example(row)
        for pixels, options in (
            (example.image, {"format": "JPEG", "quality": QUALITY}),
            (example.mask, {"format": "PNG"}),
        ):
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, **options)
            total += buffer.tell()
    return total


def size_of(folder: Path, pattern: str = "*") -> int:
    """Bytes of the files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob(pattern) if path.is_file())


@contextlib.contextmanager
def empty_data_set(rows: int, side: int, bytes_each: int) -> Iterator[Path]:
    """A data set with a real index and sparse files without records."""
    with tempfile.TemporaryDirectory() as name:
        folder, indices = Path(name), {}
        for split, count in zip(SPLITS, (rows - rows // 10, rows // 10)):
            lengths = [min(SHARD_ROWS, count - start) for start in range(0, count, SHARD_ROWS)]
            shards = []
            for number, length in enumerate(lengths):
                file = f"{NAME}-{split}.array_record-{number:05d}-of-{len(lengths):05d}"
                with (folder / file).open("wb") as shard:
                    shard.truncate(length * bytes_each)
                shards.append(Shard(file, length, length * bytes_each))
            columns = {
                "id": [f"{number:016x}" for number in range(count)],
                "prompt": [f"a red apple on the table of garden {n}" for n in range(count)],
                "task": ["fill"] * count,
                "kind": ["object"] * count,
                "label": [""] * count,
                "photo": [f"photographs/{number:06d}.jpg" for number in range(count)],
                "has_target": [False] * count,
                "height": [side] * count,
                "width": [side] * count,
            }
            indices[split] = Index(tuple(shards), columns)
        write_metadata(folder, features([(side, side)]), indices)
        yield folder


@dataclasses.dataclass
class Took:
    """Wall-clock seconds, and processor seconds of all cores."""

    clock: float = 0.0
    cores: float = 0.0


@contextlib.contextmanager
def timed() -> Iterator[Took]:
    """Measures the time of the block."""
    took = Took()
    clock, cores = time.perf_counter(), time.process_time()
    yield took
    took.clock, took.cores = time.perf_counter() - clock, time.process_time() - cores


def main() -> None:
    """Makes, writes, reads and opens a data set; prints a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=40, help="synthetic photographs")
    parser.add_argument("--side", type=int, default=1024, help="of the pictures used for training")
    parser.add_argument("--width", type=int, default=1600, help="of the photographs")
    parser.add_argument("--height", type=int, default=1200, help="of the photographs")
    parser.add_argument("--rows", type=int, default=FULL, help="of the data set to open")
    parser.add_argument(
        "--folder", type=Path, help="of photographs and records; default: temporary"
    )
    parser.add_argument(
        "--processes", nargs="*", default=["1", "2"], help="of candidates; none: not measured"
    )
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = arguments.folder
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        photographs, written = folder / "photographs", folder / "data"
        make_folder(photographs, arguments.count, (arguments.width, arguments.height))
        bytes_each = measure_data(photographs, written, arguments.side)
        measure_reading(Triplets(written, "train"))
    measure_opening(arguments.rows, arguments.side, bytes_each)
    if arguments.processes:
        candidates = Path(__file__).with_name("candidates_scale.py")
        options = ["--size", str(arguments.side), "--processes", *arguments.processes]
        sys.stdout.flush()
        subprocess.run([sys.executable, candidates, *options], check=True)


def measure_data(photographs: Path, written: Path, side: int) -> int:
    """Measures the stage on a folder; returns the bytes per record."""
    cores = len(os.sched_getaffinity(0))
    with timed() as took:
        source = FolderSource(photographs, side)
        write_triplets(written, source)
    count, records = len(source.rows), size_of(written, "*.array_record-*")
    files, scaled = size_of(photographs, "*.*g"), at_training_size(source)
    print(
        f"data: {count} triplets at {side}x{side} in {took.clock:.1f} s on {cores} cores: "
        f"{count / took.clock / cores:.1f} triplets a second and core, "
        f"{took.clock * cores / count:.3f} s a triplet and core "
        f"({took.cores / count:.3f} s of processor time); "
        f"{FULL:,} in {took.clock * cores / count * FULL / 3600:.2f} h on one core"
    )
    print(
        f"bytes: files {files / 1e6:.1f} MB, at training size {scaled / 1e6:.1f} MB, "
        f"records {records / 1e6:.1f} MB ({records / scaled:.2f} x, {records / count / 1e3:.0f} kB "
        f"each); "
        f"{FULL:,} in {records / count * FULL / 1e9:.1f} GB"
    )
    return records // count


def measure_reading(triplets: Triplets) -> None:
    """Measures random access to `READ` triplets, on one thread."""
    rows = np.random.default_rng(0).permutation(len(triplets))[:READ]
    for fields in (("image", "mask", "prompt"), ("image", "mask", "target", "prompt")):
        with timed() as took:
            for row in rows:
                triplets.read(row, fields)
        print(f"read {', '.join(fields)}: {took.clock / len(rows) * 1e3:.1f} ms a triplet")


def measure_opening(rows: int, side: int, bytes_each: int) -> None:
    """Measures opening both splits of a data set of `rows` rows."""
    with empty_data_set(rows, side, bytes_each) as folder:
        with timed() as took:
            opened = [Triplets(folder, split) for split in SPLITS]
            names = [name for triplets in opened for name in triplets.column("id")]
        size = size_of(folder, "index-*.json")
    print(f"open: {len(names):,} rows in {took.clock:.2f} s, an index of {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
