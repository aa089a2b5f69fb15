"""Benchmark folders: BrushBench's layout, EditBench's, rows, and folders of pictures.

- mapping_file.json, images/: BrushBench (arXiv 2403.06976), and EditBench as its authors processed
  it: {"000000": {"image": "images/000000.jpg", "caption": ..., "inpainting_mask": [run lengths],
  "outpainting_mask": [run lengths]}}
- annotations_natural.csv, references_natural/, masks_natural/, and the same of "generated":
  EditBench (arXiv 2212.06909), columns aos (name of the picture), prompt_full, prompt_mask-simple,
  prompt_mask-rich; .json and .jsonl are read too
- metadata.jsonl: rows with image, mask, prompt, task, target, as of `metadata`
- source/, mask/, target/, prompt/: pictures of one name; target and prompt (.txt) as far as there

The captions of the first two describe the picture as it is: it is its own target.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from onereward_jax.common.json_lines import json_lines, json_object
from onereward_jax.common.listing import shown
from onereward_jax.data.benchmark_rows import BenchmarkRow, MaskRuns, Stored, within
from onereward_jax.data.csv_rows import csv_rows
from onereward_jax.data.example import RowError
from onereward_jax.data.json_members import json_members
from onereward_jax.data.metadata import by, refuse_rows, scan_rows
from onereward_jax.data.picture_files import SUFFIXES, files_below
from onereward_jax.data.picture_paths import check_inside, find_picture
from onereward_jax.data.row_sources import Place, open_rows
from onereward_jax.pictures import stored_size
from onereward_jax.tasks import FIXED_PROMPTS, Task

MAPPING = "mapping_file.json"
ANNOTATIONS = "annotations_"
SOURCE, MASK, TARGET, PROMPT = "source", "mask", "target", "prompt"

PARTS = {
    "BrushBench": ("inpainting", "outpainting"),
    "EditBench": ("full", "mask-simple", "mask-rich"),
}
"""Layout -> which masks, or which prompts, can be chosen; the first is the default."""


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A benchmark.

    Attributes:
      name: its name in tables.
      title: what it is, for the page.
      rows: at least one, each with a name of its own.
    """

    name: str
    title: str
    rows: tuple[BenchmarkRow, ...]


Found = Iterator[tuple[Place, Callable[[], BenchmarkRow]]]
"""Where a row is, and what reads it; the latter raises RowError."""


def split_part(text: str) -> tuple[str, str]:
    """(folder, part) of "folder:part"; the part is "" if none of `PARTS` is named."""
    folder, _, part = text.rpartition(":")
    known = [one for parts in PARTS.values() for one in parts]
    return (folder, part) if folder and part in known else (text, "")


def read_benchmark(
    name: str, folder: Path, part: str = "", *, longest_side: int = 0, count: int = 0
) -> Benchmark:
    """The rows of a benchmark folder; reads the headers of its pictures, but decodes none.

    Args:
      name: its name in tables.
      folder: the folder; or a file of rows.
      part: one of `PARTS`; "": the first one of the layout.
      longest_side: longer sides are scaled down to it; 0: never.
      count: rows to read, the first ones; 0: all.

    Raises:
      FileNotFoundError: there is no such folder, or nothing that it could be read by.
      ValueError: `part` is of another layout, a file is damaged as a whole, or rows are bad: all
        are counted, and the first listed with place and reason.
    """
    if not folder.exists():
        raise FileNotFoundError(f"there is no folder {folder}")
    layout, title, found = _layout(folder, part)
    if part and part not in PARTS.get(layout, ()):
        choices = ", ".join(PARTS.get(layout, ())) or "none"
        raise ValueError(f"{folder}: {part!r} is not a part of {layout}; there are: {choices}")
    rows: list[BenchmarkRow] = []
    errors: dict[Place, RowError] = {}
    names: set[str] = set()
    for place, read in found:
        if count and len(rows) == count:
            break
        try:
            row = read()
            own = row.name
            while own.casefold() in names:  # some file systems do not tell upper from lower case
                own = f"{own}-{place.number}"
            names.add(own.casefold())
            size = within(row.stored, longest_side)
            rows.append(dataclasses.replace(row, name=own, size=size))
        except RowError as error:
            errors[place] = error
    refuse_rows(title, errors)
    if not rows:
        raise ValueError(f"{title} has no rows")
    chosen = part or (PARTS[layout][0] if layout in PARTS else "")
    return Benchmark(name, layout + (f", {chosen}" if chosen else ""), tuple(rows))


def _layout(folder: Path, part: str) -> tuple[str, str, Found]:
    """(layout, title of its rows in messages, rows)."""
    if (folder / MAPPING).is_file():
        mask = part if part in PARTS["BrushBench"] else PARTS["BrushBench"][0]
        return "BrushBench", str(folder / MAPPING), _brushbench(folder, mask)
    if files := sorted(folder.glob(f"{ANNOTATIONS}*")) if folder.is_dir() else []:
        prompt = part if part in PARTS["EditBench"] else PARTS["EditBench"][0]
        return "EditBench", str(folder), _editbench(files, prompt)
    if (folder / SOURCE).is_dir():
        return "pictures", str(folder), _pictures(folder)
    return "rows", str(folder), _rows(folder)


def _brushbench(folder: Path, part: str) -> Found:
    for number, (line, key, fields) in enumerate(json_members(folder / MAPPING), 1):
        place = Place(number, f"line {line}, entry {key}")

        def read(place: Place = place, fields: Any = fields) -> BenchmarkRow:
            if not isinstance(fields, dict):
                raise RowError(f"an object expected, found {shown(fields)}")
            name = _text(fields, "image")
            check_inside("image", name)
            image = _file(folder, name)
            size = _size(image, name)
            runs = MaskRuns(_runs(fields, f"{part}_mask"))
            runs.read(size)
            return BenchmarkRow(
                place,
                PurePosixPath(name).with_suffix("").as_posix(),
                image,
                runs,
                image,
                _text(fields, "caption"),
                Task.FILL,
                size,
                size,
            )

        yield place, read


def _runs(fields: Mapping[str, Any], name: str) -> tuple[int, ...]:
    found = fields.get(name)
    if isinstance(found, str):
        found = found.split()
    numbers = [_integer(one) for one in found] if isinstance(found, list) else None
    if not numbers or None in numbers or len(numbers) % 2:
        raise RowError(
            f"{name}: a list of first pixel and length of each run expected, found "
            f"{shown(fields.get(name))}"
        )
    return tuple(numbers)


def _integer(value: Any) -> int | None:
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _editbench(files: list[Path], part: str) -> Found:
    column, number = f"prompt_{part}", 0
    for file in files:
        kind = file.stem.removeprefix(ANNOTATIONS)
        for word, fields in _records(file):
            number += 1
            place = Place(number, f"{file.name}, {word}")

            def read(
                place: Place = place,
                fields: Any = fields,
                top: Path = file.parent,
                kind: str = kind,
            ) -> BenchmarkRow:
                if isinstance(fields, RowError):
                    raise fields
                name = _text(fields, "aos").removesuffix(".png")
                check_inside("aos", name)
                image = _file(top / f"references_{kind}", f"{name}.png")
                mask = _file(top / f"masks_{kind}", f"{name}.png")
                size = _size(image, name)
                _check_shape(size, _size(mask, name))
                prompt = _text(fields, column)
                return BenchmarkRow(
                    place, f"{kind}/{name}", image, mask, image, prompt, Task.FILL, size, size
                )

            yield place, read


def _records(file: Path) -> Iterator[tuple[str, Mapping[str, Any] | RowError]]:
    """(place, fields) of the records of a CSV, JSON or JSON lines file."""
    if file.suffix == ".csv":
        for number, cells in csv_rows(file):
            yield f"line {number}", cells
    elif file.suffix == ".jsonl":
        for number, line in json_lines(file):
            try:
                yield f"line {number}", json_object(line)
            except ValueError as error:
                yield f"line {number}", RowError(str(error))
    elif file.suffix == ".json":
        try:
            found = json.loads(file.read_text(encoding="utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{file} is not JSON: {error}") from error
        if not isinstance(found, list):
            raise ValueError(f"{file} is not a JSON list of objects")
        for number, one in enumerate(found, 1):
            bad = RowError(f"an object expected, found {shown(one)}")
            yield f"entry {number}", one if isinstance(one, dict) else bad


def _pictures(folder: Path) -> Found:
    named = {
        kind: {
            PurePosixPath(name).with_suffix("").as_posix(): name
            for name in files_below(folder / kind, SUFFIXES)
        }
        for kind in (SOURCE, MASK, TARGET)
    }
    for number, (stem, name) in enumerate(named[SOURCE].items(), 1):
        place = Place(number, f"{SOURCE}/{name}")

        def read(place: Place = place, stem: str = stem, name: str = name) -> BenchmarkRow:
            if stem not in named[MASK]:
                raise RowError(f"there is no {MASK}/{stem}.png")
            image = _file(folder / SOURCE, name)
            mask = _file(folder / MASK, named[MASK][stem])
            size = _size(image, name)
            _check_shape(size, _size(mask, stem))
            target = None
            if stem in named[TARGET]:
                target = _file(folder / TARGET, named[TARGET][stem])
                _check_shape(size, _size(target, stem), TARGET)
            text = folder / PROMPT / f"{stem}.txt"
            prompt = _read_text(text) if text.is_file() else ""
            task = Task.FILL if prompt else Task.REMOVAL
            prompt = prompt or FIXED_PROMPTS[task]
            return BenchmarkRow(place, stem, image, mask, target, prompt, task, size, size)

        yield place, read


def _rows(folder: Path) -> Found:
    source = open_rows(folder)
    found = scan_rows(source, anywhere=True)
    for place, error in found.errors.items():

        def fail(error: RowError = error) -> BenchmarkRow:
            raise error

        yield place, fail
    for row in found.rows:

        def stored(name: str, row: Any = row) -> Stored:
            return lambda: row.pictures.open(name)

        def read(row: Any = row, stored: Callable[..., Stored] = stored) -> BenchmarkRow:
            return BenchmarkRow(
                row.place,
                _inner(row.image),
                stored(row.image),
                stored(row.mask),
                stored(row.target) if row.target else None,
                row.prompt,
                row.task,
                row.size,
                row.size,
            )

        yield row.place, read


def _inner(name: str) -> str:
    """The name of a result for a picture that may be anywhere: a path that stays inside."""
    parts = PurePosixPath(name.replace(".tar/", "/")).with_suffix("").parts
    return "/".join(part for part in parts if part not in ("..", "/"))


def _file(folder: Path, name: str) -> Stored:
    """The file of a picture. Raises RowError if there is none."""
    path = find_picture(folder, name)
    return lambda: path


def _size(picture: Stored, name: str) -> tuple[int, int]:
    """Width and height of a picture, upright, from its header. Raises RowError."""
    try:
        return stored_size(picture(), name)
    except (OSError, ValueError) as error:
        raise RowError(str(error)) from error


def _check_shape(size: tuple[int, int], other: tuple[int, int], what: str = MASK) -> None:
    """Raises RowError unless the sizes are equal, or scaled alike."""
    (width, height), (across, down) = size, other
    if abs(width * down / height - across) > 1 and abs(height * across / width - down) > 1:
        raise RowError(f"{what} is {by(other)} pixels, image {by(size)}")


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value.strip():
        raise RowError(f"{name}: a text expected, found {shown(value)}")
    return value


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig").strip()
    except (OSError, ValueError) as error:
        raise RowError(f"{path.name}: {error}") from error
