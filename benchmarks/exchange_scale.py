"""Time and memory of exporting and importing preferences, with small pictures.

    python benchmarks/exchange_scale.py [--comparisons=10000] [--side=64] [--folder=/tmp/exchange]

Makes a preferences folder of comparisons with a source image, a mask and four candidates, and
answers of two annotators in four dimensions. Then every format is written and read back, each in a
process of its own. Prints comparisons per second, the peak memory of the process in MB, and its
part before the first comparison (Python and its libraries).
"""

from __future__ import annotations

import argparse
import io
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import numpy as np
from PIL import Image

from onereward_jax.annotation.comparisons import Judgement
from onereward_jax.annotation.given_comparisons import Given, Row
from onereward_jax.annotation.given_pictures import GivenPicture
from onereward_jax.annotation.preferences_folder import content_digest
from onereward_jax.exchange.conversion import export_to, import_to
from onereward_jax.exchange.formats import FORMATS
from onereward_jax.exchange.options import Options, Source
from onereward_jax.tasks import DIMENSIONS, Task

CANDIDATES, ANNOTATORS = 4, ("ann", "bob")


def rows(count: int, side: int) -> Iterator[Row]:
    """Comparisons with random pictures, all different."""
    for number in range(count):
        rng = np.random.default_rng(number)

        def picture(rng: np.random.Generator = rng) -> GivenPicture:
            coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
            file = io.BytesIO()
            coarse.resize((side, side), Image.BICUBIC).save(file, "PNG", compress_level=1)
            return GivenPicture("", file.getvalue)

        answers = [
            Judgement(dimension, *rng.permutation(CANDIDATES)[:2].tolist(), annotator)
            for dimension in DIMENSIONS[Task.FILL]
            for annotator in ANNOTATORS
        ]
        given = Given(
            task=Task.FILL,
            prompt=f"apple number {number}",
            split="test" if number % 10 == 0 else "train",
            id=f"{number}",
            image=picture(),
            mask=picture(),
            candidates=tuple(picture() for _ in range(CANDIDATES)),
            settings=({"num_inference_steps": 30, "noise_seed": number},) * CANDIDATES,
            answers=tuple(answers),
        )
        yield Row(f"row {number}", given)


def peak() -> float:
    """Peak memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def one_job(kind: str, format: str, source: pathlib.Path, to: pathlib.Path, count: int) -> None:
    """Runs one export or import and prints its figures."""
    options = Options(pictures=source if format == "label_studio" else None, name=to.name)
    if format == "label_studio" and kind == "import":
        source = source / "tasks" / f"fill-{CANDIDATES}.json"
    before, start = peak(), time.monotonic()
    if kind == "export":
        export_to(to, format, FORMATS["folder"].read(source, options), str(source), options)
    else:
        import_to(to, FORMATS[format].read(source, options), str(source))
    seconds = time.monotonic() - start
    print(
        f"{kind:7}{format:14}{count / seconds:8.0f} comparisons/s"
        f"{peak():8.0f} MB ({before:.0f} before){seconds:8.1f} s",
        flush=True,
    )


def main() -> None:
    """Runs every job in a process of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--comparisons", type=int, default=10000)
    parser.add_argument("--side", type=int, default=64, help="of the pictures, in pixels")
    parser.add_argument("--folder", type=pathlib.Path, help="where to work; default: a new one")
    parser.add_argument("--formats", default="folder,parquet,huggingface,label_studio,trl,ms_swift")
    parser.add_argument("--job", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        kind, format, source, to = options.job
        one_job(kind, format, pathlib.Path(source), pathlib.Path(to), options.comparisons)
        return
    top = pathlib.Path(tempfile.mkdtemp(dir=options.folder))
    made = top / "prefs"
    start = time.monotonic()
    source = Source(rows(options.comparisons, options.side), options.comparisons)
    import_to(made, source, "random rows")
    print(f"made {options.comparisons} comparisons in {time.monotonic() - start:.1f} s")
    for format in options.formats.split(","):
        out, back = top / format, top / f"{format}-back"
        for job in (("export", format, made, out), ("import", format, out, back)):
            command = [sys.executable, __file__, f"--comparisons={options.comparisons}", "--job"]
            subprocess.run([*command, *map(str, job)], check=True, stderr=subprocess.DEVNULL)
        if format in ("folder", "parquet", "huggingface"):
            assert content_digest(back) == content_digest(made), f"{format} lost something"
        shutil.rmtree(out)
        shutil.rmtree(back)
    shutil.rmtree(top)


if __name__ == "__main__":
    main()
