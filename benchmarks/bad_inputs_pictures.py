"""Picture files: cut, with other bytes, sizes, metadata and profiles; modes; outputs."""

from __future__ import annotations

import functools
import io
import itertools
import os
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from bad_inputs_case import Case
from PIL import Image, ImageCms

from onereward_jax.pictures import (
    check_output,
    read_mask,
    read_photograph,
    stored_size,
    write_picture,
)

WIDTH, HEIGHT = 96, 72
ENDINGS = {
    "AVIF": "avif", "BLP": "blp", "BMP": "bmp", "DDS": "dds", "DIB": "dib", "EPS": "eps",
    "GIF": "gif", "ICNS": "icns", "ICO": "ico", "IM": "im", "JPEG": "jpg", "JPEG2000": "jp2",
    "MPO": "mpo", "MSP": "msp", "PCX": "pcx", "PNG": "png", "PPM": "ppm", "QOI": "qoi",
    "SGI": "sgi", "SPIDER": "spider", "TGA": "tga", "TIFF": "tif", "WEBP": "webp", "XBM": "xbm",
}  # fmt: skip
"""Formats that Pillow reads and writes -> ending. EPS is left to Ghostscript and not cut."""

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "progressive JPEG": ("JPEG", {"progressive": True}),
    "grey JPEG": ("JPEG", {"mode": "L"}),
    "CMYK JPEG": ("JPEG", {"mode": "CMYK"}),
    "PNG with palette": ("PNG", {"mode": "P"}),
    "PNG of 16 bits": ("PNG", {"mode": "I;16"}),
    "PNG with alpha": ("PNG", {"mode": "RGBA"}),
    "TIFF, LZW": ("TIFF", {"compression": "tiff_lzw"}),
    "TIFF, JPEG": ("TIFF", {"compression": "jpeg"}),
    "TIFF, deflate": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    "TIFF, floats": ("TIFF", {"mode": "F"}),
    "lossless WebP": ("WEBP", {"lossless": True}),
    "TGA, RLE": ("TGA", {"compression": "tga_rle"}),
    "binary mask": ("PNG", {"mode": "1"}),
    "GIF of two frames": ("GIF", {"frames": True}),
}
"""Other files of these formats."""

CHECKED = ("PNG", "PNG with palette", "PNG of 16 bits", "PNG with alpha", "binary mask")
"""Files with checksums: other bytes can be noticed."""


def prepare(root: Path) -> None:
    """Writes every format."""
    Image.init()
    for name, ending, data in _all_files():
        (root / f"{name}.{ending}").write_bytes(data)


def _all_files() -> Iterator[tuple[str, str, bytes]]:
    for name, ending in ENDINGS.items():
        yield name, ending, _written(name, {})
    for name, (kind, options) in VARIANTS.items():
        yield name, ENDINGS[kind], _written(kind, options)


def _pixels() -> np.ndarray:
    """A photograph-like picture: gradients, an edge, and noise."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    noise = np.random.default_rng(0).integers(0, 12, (HEIGHT, WIDTH, 3))
    whole = np.stack([x * 2, y * 3, x + y], -1) + noise
    whole[20:40, 30:60] = (250, 250, 245)
    return whole.clip(0, 255).astype(np.uint8)


def _in_mode(mode: str) -> Image.Image:
    picture = Image.fromarray(_pixels())
    grey = np.asarray(picture.convert("L"))
    if mode == "I;16":
        return Image.fromarray(grey.astype(np.uint16) * 257)
    if mode == "F":
        return Image.fromarray(grey.astype(np.float32) / 255)
    if mode == "1":
        return Image.fromarray((grey >= 240).astype(np.uint8) * 255).convert("1")
    return picture.convert(mode)


def _written(kind: str, options: dict[str, Any]) -> bytes:
    options, buffer = dict(options), io.BytesIO()
    mode = options.pop("mode", {"SPIDER": "F", "MSP": "1", "XBM": "1", "BLP": "P"}.get(kind, "RGB"))
    picture = _in_mode(mode)
    if kind in ("ICNS",):
        picture = picture.resize((128, 128))
    if options.pop("frames", False) or kind == "MPO":
        other = picture.transpose(Image.Transpose.ROTATE_180)
        options |= {"save_all": True, "append_images": [other]}
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def _read(path: Path) -> dict[str, Any]:
    """What every reader makes of a file; raises if one of them refuses it, or they disagree."""
    found = read_photograph(path)
    size = stored_size(path)
    pixels = np.asarray(found.srgb())
    if pixels.dtype != np.uint8 or pixels.shape != (*size[::-1], 3):
        raise AssertionError(f"{pixels.dtype} {pixels.shape}, the header says {size}")
    return {"pixels": pixels, "profile": found.profile is not None}


def _read_as_mask(path: Path) -> np.ndarray:
    return np.asarray(read_mask(path))


def cases(root: Path, rng: random.Random) -> Iterator[Case]:
    """Mutations of every format."""
    for path in sorted(path for path in root.iterdir() if path.is_file()):
        name = path.stem
        data, intact = path.read_bytes(), functools.cache(functools.partial(_read, path))
        if name == "EPS":  # needs Ghostscript
            continue
        yield Case("pictures: intact", name, lambda folder, path=path: _read(path), intact, True)
        either = {"truth": intact}
        step = 1024 if len(data) > 8192 else 256
        places = {*range(0, len(data), step), *range(1, 64, 7), len(data) - 1, len(data) - 2}
        for place in sorted(places):
            yield _case("cut", path, str(place), data[:place], **either)
        yield _case("more bytes", path, "zeros", data + b"\0" * 100, **either)
        yield _case("more bytes", path, "itself", data + data, **either)
        # Without a checksum, other bytes may be another picture.
        read_somehow = either if name in CHECKED else {"truth": lambda: lambda found: True}
        for number in range(40):
            place = rng.randrange(min(len(data), 128 if number % 2 else len(data)))
            other = data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]
            yield _case("a bit", path, f"{number}: {place}", other, **read_somehow)
        for number in range(12):
            start = rng.randrange(min(len(data), 128 if number % 2 else len(data)))
            junk = rng.randbytes(rng.choice((2, 4, 16, 64)))
            other = data[:start] + junk + data[start + len(junk) :]
            yield _case("other bytes", path, f"{number}: {start}", other, **read_somehow)
    for mask in ("binary mask.png", "PNG with alpha.png", "GIF.gif", "TIFF, floats.tif"):
        yield from _of_mask(root / mask, rng)
    yield from _of_sizes(root)
    yield from _of_metadata(root, rng)
    yield from _of_paths(root)
    yield from _of_outputs()


def _case(kind: str, path: Path, what: str, data: bytes, **expected: Any) -> Case:
    def read(folder: Path) -> Any:
        (folder / path.name).write_bytes(data)
        return _read(folder / path.name)

    return Case(f"pictures: {kind}", f"{path.name} {what}", read, **expected)


def _of_mask(path: Path, rng: random.Random) -> Iterator[Case]:
    data = path.read_bytes()

    def read(other: bytes) -> Callable[[Path], Any]:
        def from_folder(folder: Path) -> Any:
            (folder / path.name).write_bytes(other)
            return _read_as_mask(folder / path.name)

        return from_folder

    truth = functools.cache(lambda: _read_as_mask(path))
    for place in range(0, len(data), 64 if len(data) < 4096 else 512):
        yield Case("pictures: masks", f"{path.name} cut at {place}", read(data[:place]), truth)
    for _ in range(20):
        place = rng.randrange(len(data))
        other = data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]
        anything = (lambda: lambda found: True) if path.suffix != ".png" else truth
        yield Case("pictures: masks", f"{path.name} bit in {place}", read(other), anything)


def _of_sizes(root: Path) -> Iterator[Case]:
    """Headers that promise more pixels than there are; small files that promise very many."""
    fields = {
        "BMP.bmp": (("<i", 18), ("<i", 22)),
        "TGA.tga": (("<H", 12), ("<H", 14)),
        "GIF.gif": (("<H", 6), ("<H", 8)),
        "QOI.qoi": ((">I", 4), (">I", 8)),
        "SGI.sgi": ((">H", 6), (">H", 8)),
        "PCX.pcx": (("<H", 8), ("<H", 10)),
    }
    for file, places in fields.items():
        data = (root / file).read_bytes()
        for (form, place), value in itertools.product(places, (0, 255, 20_000, 65_535)):
            other = bytearray(data)
            struct.pack_into(form, other, place, value)
            what = f"{place} = {value}"
            # A frame of a GIF may be smaller than its screen; a picture may be cut off.
            free = file == "GIF.gif" or not value
            truth = (lambda: lambda found: True) if free else None
            yield _case("size", root / file, what, bytes(other), truth=truth)
    png = (root / "PNG.png").read_bytes()
    # With a right checksum, decoders fill up what is missing: no reader can notice.
    anything = lambda: lambda found: True
    values = (0, 255, 20_000, 1 << 20, (1 << 31) - 1, 1 << 31)
    for place, value in itertools.product((16, 20), values):
        body = bytearray(png[12:29])
        struct.pack_into(">I", body, place - 12, value)
        other = png[:12] + body + struct.pack(">I", zlib.crc32(body)) + png[33:]
        yield _case("size", root / "PNG.png", f"{place} = {value}", bytes(other), truth=anything)
    jpeg = (root / "JPEG.jpg").read_bytes()
    start = jpeg.index(b"\xff\xc0")
    for place, value in itertools.product((start + 5, start + 7), (0, 200, 20_000, 65_535)):
        other = bytearray(jpeg)
        struct.pack_into(">H", other, place, value)
        what = f"{place - start} = {value}"
        yield _case("size", root / "JPEG.jpg", what, bytes(other), truth=anything)
    for size in ("0 5", "-1 5", "97 72", "100000 100000", "99999999999999999999 1", "x y", "3"):
        ppm = f"P6 {size} 255\n".encode() + bytes(WIDTH * HEIGHT * 3)
        yield _case("size", root / "PPM.ppm", size, ppm)
    buffer = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(buffer, "PNG")
    yield _case("size", root / "PNG.png", "900 megapixels in a small file", buffer.getvalue())


def _of_metadata(root: Path, rng: random.Random) -> Iterator[Case]:
    """EXIF, profiles and chunks that are damaged: the pixels stay, or one sentence refuses them."""
    picture = Image.fromarray(_pixels())
    exif = Image.Exif()
    exif[0x0112], exif[0x010E], exif[0x8769] = 6, "a description", {0x9003: "2020:01:01 00:00:00"}
    whole = exif.tobytes()
    turns = {array.tobytes() for array in _turned(np.asarray(picture))}
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

    def png(**info: Any) -> bytes:
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", **info)
        return buffer.getvalue()

    is_turned = lambda: lambda found: found["pixels"].tobytes() in turns
    for number in range(80):
        other = bytearray(whole)
        for _ in range(rng.choice((1, 1, 2, 8))):
            other[rng.randrange(6, len(other))] = rng.randrange(256)
        yield _case("EXIF", root / "PNG.png", str(number), png(exif=bytes(other)), truth=is_turned)
    for place in range(0, len(whole), 9):
        data = png(exif=whole[:place])
        yield _case("EXIF", root / "PNG.png", f"cut {place}", data, truth=is_turned)
    jpeg = _written("JPEG", {"exif": whole})
    turned = {array.tobytes() for array in _turned(np.asarray(Image.open(io.BytesIO(jpeg))))}
    start, stop = jpeg.index(b"Exif\0\0"), jpeg.index(b"Exif\0\0") + len(whole)
    for number in range(60):
        other = bytearray(jpeg)
        other[rng.randrange(start, stop)] = rng.randrange(256)
        truth = lambda: lambda found: found["pixels"].tobytes() in turned
        yield _case("EXIF", root / "JPEG.jpg", str(number), bytes(other), truth=truth)

    same_size = lambda: lambda found: found["pixels"].shape == (HEIGHT, WIDTH, 3)
    for number in range(80):
        other = bytearray(profile)
        for _ in range(rng.choice((1, 2, 8))):
            other[rng.randrange(len(other))] = rng.randrange(256)
        data = png(icc_profile=bytes(other))
        yield _case("profile", root / "PNG.png", str(number), data, truth=same_size)
    for place in range(0, len(profile), 29):
        data = png(icc_profile=profile[:place] or b"x")
        yield _case("profile", root / "PNG.png", f"cut {place}", data, truth=same_size)
    for mode in ("L", "CMYK"):
        data = _written("TIFF", {"mode": mode, "icc_profile": profile})
        yield _case("profile", root / "TIFF.tif", f"RGB for {mode}", data, truth=same_size)
    yield from _of_chunks(root, png(icc_profile=profile, exif=whole), rng)


def _turned(pixels: np.ndarray) -> Iterator[np.ndarray]:
    """The eight orientations."""
    for turn in range(4):
        yield np.ascontiguousarray(np.rot90(pixels, turn))
        yield np.ascontiguousarray(np.rot90(pixels[::-1], turn))


def _of_chunks(root: Path, data: bytes, rng: random.Random) -> Iterator[Case]:
    """PNG chunks missing, doubled, in another order, with wrong lengths and checksums."""
    chunks, place = [], 8
    while place < len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        chunks.append(data[place : place + 12 + length])
        place += 12 + length

    def file(parts: list[bytes]) -> bytes:
        return data[:8] + b"".join(parts)

    turns = {array.tobytes() for array in _turned(_pixels())}
    truth = lambda: lambda found: found["pixels"].tobytes() in turns
    for index, chunk in enumerate(chunks):
        kind = chunk[4:8].decode()
        before, after = chunks[:index], chunks[index + 1 :]
        other_sum = chunk[:-1] + bytes([chunk[-1] ^ 1])
        longer = (len(chunk) - 12 + 5).to_bytes(4, "big") + chunk[4:]
        huge = b"\xff\xff\xff\xff" + chunk[4:]
        for what, parts in (
            ("missing", []),
            ("twice", [chunk, chunk]),
            ("with another checksum", [other_sum]),
            ("with a longer length", [longer]),
            ("with a huge length", [huge]),
            ("without content", [b"\0\0\0\0" + chunk[4:8] + chunk[-4:]]),
        ):
            content = file([*before, *parts, *after])
            yield _case("chunks", root / "PNG.png", f"{kind} {what}", content, truth=truth)
    for number in range(10):
        order = rng.sample(chunks, len(chunks))
        yield _case("chunks", root / "PNG.png", f"order {number}", file(order), truth=truth)
    bomb = zlib.compress(b"a" * (200 << 20), 9)
    for kind, content in ((b"iCCP", b"x\0\0" + bomb), (b"zTXt", b"x\0\0" + bomb)):
        body = kind + content
        chunk = struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))
        data_ = file([chunks[0], chunk, *chunks[1:]])
        what = f"{kind.decode()} of 200 MB once inflated"
        yield _case("chunks", root / "PNG.png", what, data_, truth=truth)


def _of_paths(root: Path) -> Iterator[Case]:
    """Things that are no files of pictures."""
    contents = {
        "empty": b"", "text": b"hello", "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "HTML": b"<!DOCTYPE html><html></html>", "PDF": b"%PDF-1.4\n", "zip": b"PK\x03\x04",
        "zeros": bytes(4096), "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100),
        "AVIF": b"\0\0\0\x1cftypavif\0\0\0\0avifmif1" + bytes(100),
        "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "one byte": b"\x89",
    }  # fmt: skip
    for what, data in contents.items():
        yield _case("no pictures", root / "x.png", what, data)
    makers = {
        "a folder": lambda path: path.mkdir(),
        "a dead link": lambda path: os.symlink("nowhere", path),
        "a link to itself": lambda path: os.symlink(path.name, path),
        "nothing": lambda path: None,
        "below a file": lambda path: path.parent.joinpath("y").write_bytes(b""),
    }
    for what, make in makers.items():

        def read(folder: Path, what: str = what, make: Callable[[Path], Any] = make) -> Any:
            make(folder / "x.png")
            return _read(folder / ("y/x.png" if what == "below a file" else "x.png"))

        yield Case("pictures: no pictures", what, read)
    odd: dict[str, Any] = {
        "a number": 3, "None": None, "an empty array": np.zeros((0, 4, 3), np.uint8),
        "text as array": np.array(["a"]), "NaN": np.full((4, 4, 3), np.nan, np.float32),
        "floats to 255": np.full((4, 4, 3), 200.0), "negative": np.full((4, 4), -1),
        "five channels": np.zeros((4, 4, 5), np.uint8), "channels first": np.zeros((3, 9, 9)),
        "objects": np.array([[None, 1]]), "complex": np.zeros((4, 4), complex),
        "a NUL": "a\0b.png", "a long name": "x" * 5000 + ".png", "lone surrogate": "\ud800.png",
        "a user that is not": "~nobody_here/x.png", "empty name": "",
    }  # fmt: skip
    for what, source in odd.items():
        yield Case("pictures: no pictures", what, lambda folder, source=source: _read(source))


def _of_outputs() -> Iterator[Case]:
    """What is written is read again, and what cannot be written is refused first."""
    Image.init()
    written = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".jp2", ".ppm", ".tga"}
    for suffix in sorted({*Image.registered_extensions(), "", ".x", ".psd", ".PNG", ".svg"}):

        def read(folder: Path, suffix: str = suffix) -> Any:
            path = folder / f"x{suffix}"
            check_output(path, (WIDTH, HEIGHT))  # an error here is the right place
            try:
                write_picture(path, Image.fromarray(_pixels()))
            except Exception as error:
                raise AssertionError(f"refused after the work: {error}") from error
            return _read(path)["pixels"]

        truth = lambda: (
            lambda found: (
                found.shape == (HEIGHT, WIDTH, 3)
                and np.abs(found.astype(int) - _pixels()).mean() < 2.5
            )
        )
        yield Case("pictures: outputs", suffix or "no suffix", read, truth, suffix in written)


def small_files() -> dict[str, bytes]:
    """Format -> a file of it, without EPS."""
    Image.init()
    return {name: data for name, _, data in _all_files() if name != "EPS"}
