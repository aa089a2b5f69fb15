"""The same rows as JSON lines, CSV, Parquet and tars, cut, with other bytes, encodings, members."""

from __future__ import annotations

import csv
import functools
import io
import json
import os
import random
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from bad_inputs_case import Case
from PIL import Image

from onereward_jax.data.folder_source import FolderSource
from onereward_jax.data.metadata import RowError, refuse_rows
from onereward_jax.inference.edit_requests import read_edit_rows
from onereward_jax.tasks import Task

SIDE, COUNT = 32, 6
Row = dict[str, Any]


def prepare(root: Path) -> None:
    """Writes the same rows in every kind of file."""
    root = root / "rows"
    root.mkdir()
    for index in range(COUNT):
        Image.fromarray(_pixels(index)).save(root / f"{index}.png")
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[4 + index : 20, 6:22] = 255
        Image.fromarray(mask).save(root / f"m{index}.png")
    Image.fromarray(_pixels(0)).save(root / "caf\u00e9.png")
    Image.fromarray(np.zeros((SIDE, SIDE), np.uint8)).save(root / "black.png")
    Image.fromarray(_pixels(1)[:8]).save(root / "small.png")
    (root / "half.png").write_bytes((root / "0.png").read_bytes()[:300])
    for name in ("empty.png", "notes.txt"):
        (root / name).write_bytes(b"" if name == "empty.png" else b"no picture")
    (root / "folder").mkdir()


def _pixels(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (SIDE, SIDE, 3), np.uint8)


def rows() -> list[Row]:
    """The intact rows."""
    found = []
    for index in range(COUNT):
        row = {
            "image": f"{index}.png",
            "mask": f"m{index}.png",
            "prompt": f"a thing, number {index}",
            "task": "fill",
            "split": "test" if index % 3 == 0 else "train",
        }
        found.append(row | ({"target": f"{index}.png"} if index == 1 else {}))
    return found


def read_training(path: Path) -> list[tuple]:
    """The rows as training has them, in the form of `meaning`."""
    source = FolderSource(path, SIDE)
    source.refuse({})
    found, errors = [], {}
    for place, row in enumerate(source.rows):
        try:
            one = source.example(place)
        except RowError as error:
            errors[place] = error
            continue
        found.append((one.image, one.mask, one.prompt, one.task, one.has_target, row.split))
    source.refuse(errors)
    return found


def read_edits(path: Path) -> list[tuple]:
    """The rows as the command `edit` has them; without targets and splits."""
    edits, errors = read_edit_rows(path)
    refuse_rows(path, errors)
    found = []
    for one in edits:
        request = one.open()
        pixels = (np.asarray(request.image), np.asarray(request.mask))
        found.append((*pixels, request.prompt, request.task, False, None))
    return found


def cases(root: Path, rng: random.Random) -> Iterator[Case]:
    """All kinds of files."""
    folder = root / "rows"
    for kind, write in WRITERS.items():
        yield from _of_bytes(kind, write, folder, rng)
    yield from _of_encodings(folder)
    yield from _of_tables(folder)
    yield from _of_tars(folder)


def into(folder: Path, source: Path) -> None:
    """Links the pictures into an empty folder."""
    for path in source.iterdir():
        os.symlink(path, folder / path.name)


def _cell(value: Any) -> Any:
    return value if isinstance(value, str) else json.dumps(value)


def write_json_lines(folder: Path, found: list[Row]) -> Path:
    """metadata.jsonl in the folder."""
    text = "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in found)
    (folder / "metadata.jsonl").write_text(text)
    return folder


def write_csv(folder: Path, found: list[Row]) -> Path:
    """metadata.csv in the folder."""
    buffer = io.StringIO()
    columns = list(dict.fromkeys(name for row in found for name in row))
    writer = csv.writer(buffer)
    writer.writerow(columns)
    for row in found:
        writer.writerow(["" if row.get(c) is None else _cell(row[c]) for c in columns])
    (folder / "metadata.csv").write_bytes(buffer.getvalue().encode("utf-8", "surrogatepass"))
    return folder


def write_parquet(folder: Path, found: list[Row]) -> Path:
    """metadata.parquet in the folder, with paths."""
    columns = list(dict.fromkeys(name for row in found for name in row))
    table = pa.table({c: pa.array([row.get(c) for row in found], pa.string()) for c in columns})
    pq.write_table(table, folder / "metadata.parquet")
    return folder


def write_embedded(folder: Path, found: list[Row]) -> Path:
    """A Parquet file with the pictures in it, elsewhere."""
    inside = folder / "x"
    inside.mkdir()
    columns = list(dict.fromkeys(name for row in found for name in row))
    arrays = {}
    for column in columns:
        values = [row.get(column) for row in found]
        if column in ("image", "mask", "target"):
            values = [v and {"bytes": (folder / v).read_bytes(), "path": v} for v in values]
            arrays[column] = pa.array(
                values, pa.struct([("bytes", pa.binary()), ("path", pa.string())])
            )
        else:
            arrays[column] = pa.array(values, pa.string())
    pq.write_table(pa.table(arrays), inside / "train.parquet")
    return inside


def write_tar(folder: Path, found: list[Row]) -> Path:
    """A webdataset shard, elsewhere."""
    inside = folder / "x"
    inside.mkdir()
    with tarfile.open(inside / "shard-0.tar", "w") as tar:
        for number, row in enumerate(found):
            texts = {name: row[name] for name in ("prompt", "task", "split") if name in row}
            _add(tar, f"{number:04d}.json", json.dumps(texts).encode())
            for field, suffix in (("image", "png"), ("mask", "mask.png"), ("target", "target.png")):
                if row.get(field):
                    _add(tar, f"{number:04d}.{suffix}", (folder / row[field]).read_bytes())
    return inside


def _add(tar: tarfile.TarFile, name: str, content: bytes, **fields: Any) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for field, value in fields.items():
        setattr(member, field, value)
    tar.addfile(member, io.BytesIO(content))


WRITERS: dict[str, Callable[[Path, list[Row]], Path]] = {
    "JSON lines": write_json_lines,
    "CSV": write_csv,
    "Parquet": write_parquet,
    "Parquet with pictures": write_embedded,
    "tar": write_tar,
}


def _of_bytes(
    kind: str, write: Callable[[Path, list[Row]], Path], source: Path, rng: random.Random
) -> Iterator[Case]:
    """Files that are cut, or have other bytes: rows that are read are known pictures."""
    known = {np.asarray(_pixels(index)).tobytes() for index in range(COUNT)}

    def right(result: list[tuple]) -> bool:
        return all(one[0].tobytes() in known and one[2].strip() for one in result)

    def case(name: str, change: Callable[[bytes], bytes], truth: Any = right) -> Case:
        def read(folder: Path) -> Any:
            into(folder, source)
            path = write(folder, rows())
            file = next(p for p in path.iterdir() if not p.is_symlink() and p.is_file())
            file.write_bytes(change(file.read_bytes()))
            return read_training(path)

        return Case(f"rows: {kind}, bytes", name, read, lambda: truth)

    yield case("intact", lambda data: data, lambda found: len(found) == COUNT)
    yield case("empty", lambda data: b"", lambda found: False)
    yield case("zeros", lambda data: bytes(len(data)), lambda found: False)
    for number in range(25):
        part = rng.random()
        yield case(f"cut {number}", lambda data, part=part: data[: int(part * len(data))])
    for number in range(60):
        part, value = rng.random(), rng.randrange(256)
        # A picture in the file may have other bits; it has a checksum, or other pixels.
        truth = right if kind in ("JSON lines", "CSV", "Parquet") else lambda found: True
        yield case(
            f"byte {number}",
            lambda data, part=part, value=value: (
                data[: (p := int(part * len(data)))] + bytes([value]) + data[p + 1 :]
            ),
            truth,
        )  # fmt: skip


def _of_encodings(source: Path) -> Iterator[Case]:
    """Encodings and line ends, of JSON lines and CSV."""

    def case(name: str, file: str, change: Callable[[bytes], bytes], good: bool = False) -> Case:
        def read(folder: Path) -> Any:
            into(folder, source)
            write = write_csv if file.endswith("csv") else write_json_lines
            write(folder, rows())
            (folder / file).write_bytes(change((folder / file).read_bytes()))
            return read_training(folder)

        truth = functools.cache(lambda: _plain(source, rows()))
        return Case("rows: encodings", f"{file}, {name}", read, truth, good)

    for file in ("metadata.jsonl", "metadata.csv"):
        yield case("byte order mark", file, lambda data: b"\xef\xbb\xbf" + data, True)
        yield case("CRLF", file, lambda d: d.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"), True)
        yield case("blank lines", file, lambda data: data.replace(b"\n", b"\n\n"), True)
        yield case("no last line feed", file, lambda data: data.rstrip(), True)
        for encoding in ("utf-16", "utf-16-le", "utf-32", "utf-7"):
            yield case(encoding, file, lambda d, e=encoding: d.decode().encode(e))
        yield case("latin-1", file, lambda d: d.replace(b"thing", b"th\xefng"))
        yield case(
            "carriage returns", file, lambda d: d.replace(b"\r\n", b"\n").replace(b"\n", b"\r")
        )
        yield case("gzip magic", file, lambda d: b"\x1f\x8b" + d)
    for odd in ("\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1e"):
        found = rows()
        found[2]["prompt"] = f"a red{odd}apple"
        for raw in (True, False):
            if raw and odd < " ":
                continue
            text = "".join(json.dumps(row, ensure_ascii=not raw) + "\n" for row in found)

            def read(folder: Path, text: str = text) -> Any:
                into(folder, source)
                (folder / "metadata.jsonl").write_text(text, encoding="utf-8", newline="")
                return read_training(folder)

            truth = lambda found=found: _plain(source, found)
            name = f"U+{ord(odd):04X}, {'raw' if raw else 'escaped'}"
            yield Case("rows: encodings", name, read, truth, odd in "\u2028\u2029\x85")


def _of_tables(source: Path) -> Iterator[Case]:
    """CSV with odd cells, Parquet with odd columns."""
    head = "image,mask,prompt,task,split\n"
    line = "0.png,m0.png,a cup,fill,train\n1.png,m1.png,a tree,fill,test\n"
    texts = {
        "a cell more": head + line + "2.png,m2.png,a, b,fill,test\n",
        "a cell less": head + line + "2.png,m2.png\n",
        "an open quote": head + line + '2.png,m2.png,"a dog,fill,test\n',
        "a quote inside": head + line + '2.png,m2.png,a "big" dog,fill,test\n',
        "a column twice": "image,image,mask,prompt\n0.png,1.png,m0.png,a cup\n",
        "two spellings": "image,file_name,mask,prompt\n0.png,1.png,m0.png,a cup\n",
        "no columns": line,
        "names only": head,
        "NUL": head + line + "2.png,m2.png,a\0dog,fill,test\n",
        "a long cell": head + line + f"2.png,m2.png,{'x' * (1 << 21)},fill,test\n",
        "ten thousand columns": ",".join(f"c{n}" for n in range(10_000)) + "\n",
        "a formula": head + line + "=HYPERLINK(1),m2.png,a dog,fill,test\n",
        "misspelt": "imgae,mask,prompt,split\n0.png,m0.png,a cup,train\n",
        "spaces for commas": "image mask prompt\n0.png m0.png cup\n",
    }
    for name, text in texts.items():

        def read(folder: Path, text: str = text) -> Any:
            into(folder, source)
            (folder / "metadata.csv").write_text(text)
            return read_training(folder)

        anything = lambda: lambda found: len(found) == 3
        truth = anything if name in ("a quote inside", "a long cell", "NUL") else None
        yield Case("rows: tables", f"CSV, {name}", read, truth)
    masks = pa.array(["m0.png", "m1.png"])
    columns: dict[str, Any] = {
        "numbers as images": {"image": pa.array([1, 2]), "mask": masks},
        "lists": {"image": pa.array([["0.png"], ["1.png"]]), "mask": masks},
        "bytes that are no picture": {"image": pa.array([b"x", b"y"]), "mask": masks},
        "null bytes": {"image": pa.array([None, None], pa.binary()), "mask": pa.array([None] * 2)},
        "no rows": {"image": pa.array([], pa.string()), "mask": pa.array([], pa.string())},
        "dates": {"image": pa.array([0, 1], pa.timestamp("s")), "mask": masks},
        "a dictionary": {
            "image": pa.array(["0.png", "x.png"]).dictionary_encode(), "mask": masks,
        },
        "booleans as prompts": {
            "image": pa.array(["0.png", "1.png"]), "mask": pa.array(["m0.png", "m1.png"]),
            "prompt": pa.array([True, False]),
        },
        "nothing": {"x": pa.array([1, 2])},
    }  # fmt: skip
    for name, arrays in columns.items():

        def read_table(folder: Path, arrays: dict[str, Any] = arrays) -> Any:
            into(folder, source)
            pq.write_table(pa.table(arrays), folder / "metadata.parquet")
            return read_training(folder)

        yield Case("rows: tables", f"Parquet, {name}", read_table)


def _of_tars(source: Path) -> Iterator[Case]:
    """Tars with odd members."""
    image, mask = (source / "0.png").read_bytes(), (source / "m0.png").read_bytes()
    text = json.dumps({"prompt": "a cup"}).encode()
    good = [("a.png", image, {}), ("a.mask.png", mask, {}), ("a.json", text, {})]
    second = [(name.replace("a.", "b."), *rest) for name, *rest in good]
    second[0] = ("b.png", (source / "1.png").read_bytes(), {})
    odd: dict[str, list[tuple[str, bytes, dict[str, Any]]]] = {
        "no mask": [good[0], good[2]],
        "no image": good[1:],
        "two images": [*good, ("a.jpg", image, {})],
        "the same twice": [*good, good[0]],
        "json a list": [*good[:2], ("a.json", b"[]", {})],
        "json broken": [*good[:2], ("a.json", b"{", {})],
        "json nested": [*good[:2], ("a.json", b'{"a":' * 100_000, {})],
        "json not UTF-8": [*good[:2], ("a.json", b'{"prompt": "\xff"}', {})],
        "two prompts": [*good, ("a.txt", b"a dog", {})],
        "a picture that is none": [("a.png", b"x", {}), *good[1:]],
        "a mask of another size": [good[0], ("a.mask.png", (source / "small.png").read_bytes(), {}),
                                   good[2]],
        "links": [("a.png", b"", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}), *good[1:]],
        "nothing": [],
        "folders only": [("a", b"", {"type": tarfile.DIRTYPE})],
    }  # fmt: skip
    outside = [("../a.png", image, {}), ("/a.mask.png", mask, {}), ("../a.json", text, {})]
    odd["names that lead out"] = outside
    for name, members in odd.items():

        def read(folder: Path, members: list = members) -> Any:
            with tarfile.open(folder / "x.tar", "w") as tar:
                for member, content, fields in [*members, *second]:
                    _add(tar, member, content, **fields)
            return read_training(folder)

        # Only the other sample is there; a split then has no row. A prompt has precedence.
        truth = (lambda: lambda found: len(found) == 2) if name == "two prompts" else None
        yield Case("rows: tars", name, read, truth)
    for suffix in ("gz", "bz2", "xz"):

        def read_compressed(folder: Path, suffix: str = suffix) -> Any:
            into(folder, source)
            inside = write_tar(folder, rows())
            with tarfile.open(folder / f"y.tar.{suffix}", f"w:{suffix}") as tar:
                tar.add(inside / "shard-0.tar", "shard-0.tar")
            shutil.copy(folder / f"y.tar.{suffix}", inside / "shard-0.tar")
            return read_training(inside)

        yield Case("rows: tars", f"compressed, {suffix}", read_compressed)


def _plain(source: Path, found: list[Row]) -> list[tuple]:
    """What good rows of fills mean, in the form of `read_training`."""
    return [
        (
            np.asarray(Image.open(source / row["image"])),
            np.asarray(Image.open(source / row["mask"])),
            row["prompt"],
            Task.FILL,
            "target" in row,
            row["split"],
        )
        for row in found
    ]
