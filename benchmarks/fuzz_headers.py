"""Fuzzes the parsers of headers, guided by coverage: any error but a sentence is a finding.

    pip install atheris
    python benchmarks/fuzz_headers.py --target=safetensors --seconds=600
    python benchmarks/fuzz_headers.py --seconds=600     # all targets in turn, the time is shared

libFuzzer (atheris) mutates intact examples and keeps what reaches new code. A finding ends the
process with a traceback and leaves the input in `crash-*` of the current folder. The exit code is 0
if there is none. Without atheris, which needs Linux, `benchmarks/bad_inputs.py` mutates the same
files at random.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

TARGETS: dict[str, Callable[[Path], Callable[[bytes], None]]] = {}
"""Name -> maker of what reads an input; it gets an empty folder."""


def target(make: Callable[[Path], Callable[[bytes], None]]) -> Callable:
    """Adds a target under the name of its function."""
    TARGETS[make.__name__] = make
    return make


@target
def safetensors(folder: Path) -> Callable[[bytes], None]:
    """The header of a weight file."""
    from onereward_jax.convert.safetensors_reader import find_tensors

    def read(data: bytes) -> None:
        (folder / "model.safetensors").write_bytes(data)
        for tensor in find_tensors(folder, "model").values():
            tensor[()]

    return read


@target
def index(folder: Path) -> Callable[[bytes], None]:
    """The index of several weight files."""
    from onereward_jax.convert.safetensors_reader import find_tensors

    (folder / "a.safetensors").write_bytes(_safetensors())

    def read(data: bytes) -> None:
        (folder / "model.safetensors.index.json").write_bytes(data)
        find_tensors(folder, "model")

    return read


@target
def pictures(folder: Path) -> Callable[[bytes], None]:
    """The header of a picture: size, orientation, format."""
    from onereward_jax.pictures import stored_size

    return lambda data: stored_size(data) and None


@target
def masks(folder: Path) -> Callable[[bytes], None]:
    """Whole pictures, with profiles and transparency, as photographs and as masks."""
    from onereward_jax.pictures import read_mask, read_photograph

    def read(data: bytes) -> None:
        read_photograph(data).srgb()
        read_mask(data)

    return read


@target
def jpeg(folder: Path) -> Callable[[bytes], None]:
    """The segments of a JPEG file whose metadata are removed."""
    from onereward_jax.data.jpeg import without_metadata

    return lambda data: without_metadata(data) and None


@target
def json_lines(folder: Path) -> Callable[[bytes], None]:
    """Lines of metadata.jsonl."""
    return _rows(folder, "metadata.jsonl")


@target
def csv(folder: Path) -> Callable[[bytes], None]:
    """A table of rows."""
    return _rows(folder, "metadata.csv")


@target
def tar(folder: Path) -> Callable[[bytes], None]:
    """The index of a tar."""
    return _rows(folder, "a.tar")


def _rows(folder: Path, name: str) -> Callable[[bytes], None]:
    from onereward_jax.data.metadata import scan_rows
    from onereward_jax.data.row_sources import open_rows

    def read(data: bytes) -> None:
        (folder / name).write_bytes(data)
        os.utime(folder / name, ns=(0, read.count))  # caches know files by their time
        read.count += 1
        scan_rows(open_rows(folder))

    read.count = 0
    return read


def _safetensors() -> bytes:
    header = json.dumps(
        {
            "__metadata__": {"format": "pt"},
            "a.weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
            "b": {"dtype": "BF16", "shape": [3], "data_offsets": [16, 22]},
        }
    ).encode()
    return len(header).to_bytes(8, "little") + header + bytes(22)


def examples(name: str) -> list[bytes]:
    """Intact inputs, from which the fuzzer starts."""
    if name == "safetensors":
        return [_safetensors()]
    if name == "index":
        return [
            b'{"metadata": {}, "weight_map": {"a.weight": "a.safetensors", "b": "a.safetensors"}}'
        ]
    if name == "json_lines":
        return [b'{"image": "a.png", "mask": "m.png", "prompt": "a cup", "task": "fill"}\n']
    if name == "csv":
        return [b'image,mask,prompt\na.png,m.png,"a cup, red"\n', b"file_name;text\na.png;x\n"]
    if name == "tar":
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as file:
            for member, content in (
                ("a.json", b'{"prompt": "x"}'),
                ("a.png", b"x"),
                ("b.txt", b"y"),
            ):
                info = tarfile.TarInfo(member)
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
        return [buffer.getvalue()]
    from bad_inputs_pictures import small_files

    files = small_files()
    return [files["JPEG"]] if name == "jpeg" else list(files.values())


def fuzz(name: str, seconds: int) -> None:
    """Fuzzes one target; never returns."""
    import atheris
    from absl import logging

    logging.set_verbosity(logging.FATAL)
    warnings.simplefilter("ignore")
    packages = ["onereward_jax", "PIL", "safetensors", "tarfile", "csv", "json"]
    with atheris.instrument_imports(include=packages):
        folder = Path(tempfile.mkdtemp(prefix="fuzz_"))
        (folder / "x").mkdir()
        read = TARGETS[name](folder / "x")
        from onereward_jax.common.user_errors import is_user_error
    (folder / "examples").mkdir()
    for number, data in enumerate(examples(name)):
        (folder / "examples" / str(number)).write_bytes(data)

    def once(data: bytes) -> None:
        try:
            read(data)
        except (ValueError, OSError) as error:
            if not is_user_error(error):
                raise

    limits = [f"-max_total_time={seconds}", "-rss_limit_mb=6000", "-timeout=30", "-max_len=4096"]
    atheris.Setup([sys.argv[0], *limits, "-verbosity=1", str(folder / "examples")], once)
    atheris.Fuzz()


def main() -> None:
    """Fuzzes one target here, or each in a process of its own."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--target", choices=list(TARGETS), help="default: all, one by one")
    options.add_argument("--seconds", type=int, default=600, help="altogether")
    given = options.parse_args()
    if given.target:
        fuzz(given.target, given.seconds)
    each, findings = max(1, given.seconds // len(TARGETS)), 0
    for name in TARGETS:
        command = [sys.executable, __file__, f"--target={name}", f"--seconds={each}"]
        outcome = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = outcome.stderr.splitlines()
        done = [line for line in lines if line.startswith("Done")]
        print(f"{name}: {done[-1] if done else 'a finding'}", flush=True)
        if outcome.returncode:
            findings += 1
            print("\n".join(lines[-40:]))
    print(f"{findings} findings")
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()
