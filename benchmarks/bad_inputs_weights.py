"""Weight files and their indexes: cut, flipped, renamed, resized, re-typed, reordered."""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from bad_inputs_case import Case
from bad_inputs_models import COMPONENTS, intact, read_component

from onereward_jax.convert import save_params

Header = dict[str, Any]
TYPES = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "F64": np.float64}
SHARD = 1 << 20
"""Bytes of a file of the folders with several files."""


def prepare(root: Path) -> None:
    """Writes the components in several files."""
    for name, one in COMPONENTS.items():
        config = json.loads((one.folder / "config.json").read_text())
        params = intact(name)["params"]
        size = SHARD if name in ("transformer", "vae", "judge") else SHARD // 8
        save_params(root / name, params, one.layout, config=config, max_shard_bytes=size)


def split_file(data: bytes) -> tuple[Header, bytes]:
    """Header and tensors of a safetensors file."""
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def join_file(header: Header | bytes, tensors: bytes) -> bytes:
    """A safetensors file; the header may be any text."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + tensors


def packed(arrays: Mapping[str, np.ndarray], kinds: Mapping[str, str]) -> bytes:
    """A safetensors file of arrays, labelled with these dtypes."""
    header, parts, place = {}, [], 0
    for key, array in arrays.items():
        data = np.ascontiguousarray(array).tobytes()
        header[key] = {
            "dtype": kinds[key],
            "shape": list(array.shape),
            "data_offsets": [place, place + len(data)],
        }
        parts.append(data)
        place += len(data)
    return join_file(header, b"".join(parts))


def unpacked(data: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and dtypes of a safetensors file."""
    header, tensors = split_file(data)
    header.pop("__metadata__", None)
    arrays, kinds = {}, {}
    for key, entry in header.items():
        start, stop = entry["data_offsets"]
        kinds[key] = entry["dtype"]
        flat = np.frombuffer(tensors[start:stop], TYPES[entry["dtype"]])
        arrays[key] = flat.reshape(entry["shape"]).copy()
    return arrays, kinds


def cases(root: Path, rng: random.Random) -> Iterator[Case]:
    """Mutations of every component."""
    for name in COMPONENTS:
        yield from _of_bytes(name, rng)
        yield from _of_tensors(name, rng)
        yield from _of_index(name, root / name, rng)
    yield from _of_paths()


def _case(kind: str, name: str, what: str, data: Callable[[], bytes], **expected: Any) -> Case:
    """A component with other bytes in its weight file."""
    one = COMPONENTS[name]

    def read(folder: Path) -> Any:
        shutil.copy(one.folder / "config.json", folder)
        (folder / one.weights).write_bytes(data())
        return read_component(name, folder)

    return Case(f"weights: {kind}", f"{name} {what}", read, **expected)


@functools.cache
def _stored(name: str) -> bytes:
    one = COMPONENTS[name]
    return (one.folder / one.weights).read_bytes()


def _of_bytes(name: str, rng: random.Random) -> Iterator[Case]:
    """Cut files, and headers with other bytes."""
    whole = functools.partial(_stored, name)
    size = len(whole())
    start = 8 + int.from_bytes(whole()[:8], "little")
    either = {"truth": functools.partial(intact, name)}
    places = {0, 1, 7, 8, 9, start - 1, start, start + 1, size - 1, size - 4096}
    places |= {rng.randrange(start) for _ in range(15)} | {rng.randrange(size) for _ in range(15)}
    for place in sorted(places):
        yield _case("cut", name, f"at {place}", lambda place=place: whole()[:place])
    for extra in (b"\0", b"\0" * 4096, whole()[:64]):
        what = f"{len(extra)} bytes more"
        yield _case("cut", name, what, lambda extra=extra: whole() + extra, **either)
    for _ in range(60):
        place, bit = rng.randrange(start), 1 << rng.randrange(8)
        yield _case(
            "header bits", name, f"{place} ^ {bit}",
            lambda place=place, bit=bit: _replaced(whole(), place, whole()[place] ^ bit), **either,
        )  # fmt: skip
    for _ in range(60):
        place, letter = rng.randrange(8, start), rng.choice(b'0123456789[]{}",:-.FBIUetnul\0\xff')
        yield _case(
            "header bytes", name, f"{place} = {letter}",
            lambda place=place, letter=letter: _replaced(whole(), place, letter), **either,
        )  # fmt: skip
    for length in (0, 1, 8, start - 9, start - 7, 1 << 20, 100_000_001, 1 << 40, (1 << 64) - 1):
        yield _case(
            "header length", name, str(length),
            lambda length=length: length.to_bytes(8, "little") + whole()[8:],
        )  # fmt: skip


def _replaced(data: bytes, place: int, value: int) -> bytes:
    return data[:place] + bytes([value]) + data[place + 1 :]


def _of_tensors(name: str, rng: random.Random) -> Iterator[Case]:
    """Tensors renamed, removed, doubled, resized, re-typed, cast, not finite."""
    truth = functools.partial(intact, name)

    def changed(change: Callable[[dict, dict], Any]) -> Callable[[], bytes]:
        def data() -> bytes:
            arrays, kinds = unpacked(_stored(name))
            change(arrays, kinds)
            return packed(arrays, kinds)

        return data

    keys = sorted(unpacked(_stored(name))[0])
    shapes = {key: array.shape for key, array in unpacked(_stored(name))[0].items()}
    some = rng.sample(keys, min(10, len(keys)))
    for key in some:
        new = rng.choice([key + ".", key.upper(), "x." + key, key + "_1", key[:-1], "é" + key, ""])
        if new not in keys:
            change = lambda a, k, key=key, new=new: (
                a.update({new: a.pop(key)}),
                k.update({new: k[key]}),
            )
            yield _case("renamed", name, f"{key} to {new}", changed(change))
        yield _case("removed", name, key, changed(lambda a, k, key=key: a.pop(key)))
        change = lambda a, k, key=key: (
            a.update({"more." + key: a[key]}),
            k.update({"more." + key: k[key]}),
        )
        yield _case("more tensors", name, key, changed(change))
        for what, resize in (
            ("a row less", lambda x: x[:-1]),
            ("a row more", lambda x: np.concatenate([x, x[:1]])),
            ("flat", lambda x: x.reshape(1, -1)),
            ("an axis more", lambda x: x[..., None]),
            ("no rows", lambda x: x[:0]),
            ("a number", lambda x: x.ravel()[0]),
        ):
            change = lambda a, k, key=key, resize=resize: a.update({key: resize(a[key])})
            yield _case("resized", name, f"{key}, {what}", changed(change))
        if len(set(shapes[key])) > 1:
            change = lambda a, k, key=key: a.update({key: a[key].T})
            yield _case("transposed", name, key, changed(change))
        for kind in ("I32", "U32", "I64", "U8", "BOOL", "C64"):
            change = lambda a, k, key=key, kind=kind: (
                a.update({key: _labelled(a[key], kind)}), k.update({key: kind})
            )  # fmt: skip
            yield _case("re-typed", name, f"{key} as {kind}", changed(change))
        for value in (np.nan, np.inf, -np.inf):
            change = lambda a, k, key=key, value=value: a[key].__setitem__(
                (a[key].size // 2 % len(a[key]),) if a[key].ndim else (), value
            )
            yield _case("not finite", name, f"{key}, {value}", changed(change))
    for kind in ("F64", "F32", "F16", "BF16"):
        change = lambda a, k, kind=kind: (
            a.update({key: a[key].astype(TYPES[kind]) for key in a}),
            k.update(dict.fromkeys(k, kind)),
        )  # fmt: skip
        yield _case(
            "cast", name, kind, changed(change),
            truth=functools.partial(_cast, name, TYPES[kind]), good=True,
        )  # fmt: skip
    order = rng.sample(keys, len(keys))
    change = lambda a, k: [a.update({key: a.pop(key)}) for key in order]
    yield _case("reordered", name, "all", changed(change), truth=truth, good=True)
    yield from _odd_headers(name, keys, truth)


def _labelled(array: np.ndarray, kind: str) -> np.ndarray:
    """The tensor with a dtype of integers, or of another width."""
    types = {"I32": np.int32, "U32": np.uint32, "I64": np.int64, "U8": np.uint8, "BOOL": np.bool_}
    types |= {"F8_E4M3": ml_dtypes.float8_e4m3fn, "C64": np.complex64}
    return np.asarray(array, np.float32).astype(types[kind])


@functools.cache
def _cast(name: str, dtype: Any) -> dict[str, Any]:
    """The component whose tensors were rounded to a dtype."""
    import jax

    whole = intact(name)
    cast = lambda leaf: np.asarray(leaf).astype(dtype).astype(leaf.dtype)
    return {"config": whole["config"], "params": jax.tree.map(cast, whole["params"])}


def _odd_headers(name: str, keys: list[str], truth: Callable[[], Any]) -> Iterator[Case]:
    """Headers that the format allows, or not."""
    header, tensors = split_file(_stored(name))
    first, second = keys[0], keys[1]
    text = json.dumps(header)
    entry = json.dumps(header[first])

    def with_entry(**fields: Any) -> bytes:
        return json.dumps({**header, first: {**header[first], **fields}}).encode()

    odd: dict[str, bytes] = {
        "a key twice": f"{{{json.dumps(first)}: {entry}, {text[1:]}".encode(),
        "a list": b"[]",
        "empty": b"{}",
        "nested 10,000 deep": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        "tensors overlap": with_entry(data_offsets=header[second]["data_offsets"]),
        "negative offset": with_entry(data_offsets=[-4, 0]),
        "fractional offset": with_entry(data_offsets=[0.5, 4.5]),
        "huge offset": with_entry(data_offsets=[1 << 62, (1 << 62) + 4]),
        "huge shape": with_entry(shape=[1 << 40, 1 << 40]),
        "negative shape": with_entry(shape=[-1]),
        "shape null": with_entry(shape=None),
        "dtype null": with_entry(dtype=None),
        "dtype a list": with_entry(dtype=["F32"]),
        "no tensors": json.dumps({"__metadata__": {"format": "pt"}}).encode(),
        "metadata of numbers": json.dumps({"__metadata__": {"a": 1}, **header}).encode(),
        "metadata a list": json.dumps({"__metadata__": [], **header}).encode(),
        "metadata null": json.dumps({"__metadata__": None, **header}).encode(),
        "utf-16": text.encode("utf-16"),
        "byte order mark": b"\xef\xbb\xbf" + text.encode(),
        "lone surrogate": text.replace(first, first + "\\ud800", 1).encode(),
        "latin-1": text.replace(first, first + "\xe9", 1).encode("latin-1"),
    }
    for what, data in odd.items():
        yield _case(
            "odd header", name, what, lambda data=data: join_file(data, tensors), truth=truth
        )
    metadata = json.dumps({"__metadata__": {"format": "tf", "x": "é\u2028"}, **header}).encode()
    for what, data in (("spaces", text.encode() + b" " * 4096), ("other metadata", metadata)):
        yield _case(
            "odd header", name, what, lambda data=data: join_file(data, tensors),
            truth=truth, good=True,
        )  # fmt: skip


def _of_index(name: str, shards: Path, rng: random.Random) -> Iterator[Case]:
    """Folders of several files with a wrong index or wrong files."""
    one = COMPONENTS[name]
    index_name = f"{one.weights}.index.json"
    truth = functools.partial(intact, name)
    index = json.loads((shards / index_name).read_text())
    files = sorted(set(index["weight_map"].values()))
    key, other = rng.sample(sorted(index["weight_map"]), 2)

    def case(what: str, change: Callable[[Path], Any], **expected: Any) -> Case:
        def read(folder: Path) -> Any:
            shutil.copytree(shards, folder, dirs_exist_ok=True)
            change(folder)
            return read_component(name, folder)

        return Case("weights: index", f"{name}, {what}", read, **expected)

    def with_map(**changes: Any) -> Callable[[Path], Any]:
        found = {**index["weight_map"], **changes}
        kept = {one: file for one, file in found.items() if file != "REMOVED"}
        return lambda folder: (folder / index_name).write_text(json.dumps({"weight_map": kept}))

    def text(content: str | bytes) -> Callable[[Path], Any]:
        data = content if isinstance(content, bytes) else content.encode()
        return lambda folder: (folder / index_name).write_bytes(data)

    elsewhere = next(file for file in files if file != index["weight_map"][key])
    yield case("intact", lambda folder: None, truth=truth, good=True)
    yield case("without metadata", with_map(), truth=truth, good=True)
    yield case("another file", with_map(**{key: elsewhere}))
    yield case("no such file", with_map(**{key: "x.safetensors"}))
    yield case("another folder", with_map(**{key: f"../{shards.name}/{files[0]}"}))
    yield case("absolute", with_map(**{key: str(shards / files[0])}))
    yield case("a number", with_map(**{key: 3}))
    yield case("null", with_map(**{key: None}))
    yield case("a key less", with_map(**{key: "REMOVED"}))
    yield case("a key more", with_map(more=files[0]))
    yield case("config as file", with_map(**{key: "config.json"}))
    yield case("itself as file", with_map(**{key: index_name}))
    yield case("two files change places", lambda folder: _swap(folder, files[0], files[-1]))
    yield case("a file missing", lambda folder: (folder / files[0]).unlink())
    yield case("a file twice", lambda folder: shutil.copy(folder / files[0], folder / files[-1]))
    yield case("a folder as file", lambda folder: _as_folder(folder / files[0]))
    yield case("a dead link", lambda folder: _dead_link(folder / files[0]))
    yield case("more files", lambda f: shutil.copy(f / files[0], f / "x.safetensors"), truth=truth)
    yield case("empty", text(""))
    yield case("a list", text("[]"))
    yield case("no map", text("{}"))
    yield case("an empty map", text('{"weight_map": {}}'))
    yield case("a list as map", text('{"weight_map": ["a"]}'))
    yield case("not UTF-8", text(b'{"weight_map": "\xff"}'))
    yield case("nested", text('{"weight_map":' + "[" * 100_000))
    raw = (shards / index_name).read_bytes()
    for _ in range(12):
        place = rng.randrange(len(raw))
        yield case(f"cut at {place}", text(raw[:place].rstrip() or b"{"))
    for _ in range(25):
        place, value = rng.randrange(len(raw)), rng.randrange(256)
        yield case(f"{place} = {value}", text(_replaced(raw, place, value)), truth=truth)


def _swap(folder: Path, one: str, other: str) -> None:
    (folder / one).rename(folder / "x")
    (folder / other).rename(folder / one)
    (folder / "x").rename(folder / other)


def _as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _dead_link(path: Path) -> None:
    path.unlink()
    os.symlink("nowhere", path)


def _of_paths() -> Iterator[Case]:
    """Files of other kinds in the place of weights, and no files."""
    contents = {
        "a pickle": b"\x80\x02}q\x00.",
        "a zip": b"PK\x03\x04" + b"\0" * 100,
        "an HTML page": b"<!DOCTYPE html><html><body>404</body></html>",
        "a pointer of git lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "GGUF": b"GGUF\x03\0\0\0" + b"\0" * 64,
    }
    for name in COMPONENTS:
        for what, data in contents.items():
            yield _case("another kind", name, what, lambda data=data: data)
        for what in ("a folder", "a dead link", "nothing", "*.bin alone"):
            yield Case(
                "weights: another kind", f"{name} {what}", functools.partial(_put, name, what)
            )


def _put(name: str, what: str, folder: Path) -> Any:
    one = COMPONENTS[name]
    shutil.copy(one.folder / "config.json", folder)
    if what == "a folder":
        (folder / one.weights).mkdir()
    elif what == "a dead link":
        os.symlink("nowhere", folder / one.weights)
    elif what == "*.bin alone":
        (folder / "pytorch_model.bin").write_bytes(b"PK\x03\x04")
    return read_component(name, folder)
