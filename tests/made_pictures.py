"""Pictures as people have them, made byte by byte where Pillow writes no such file."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

SIDE = 16


def colours(seed: int = 0) -> np.ndarray:
    """Smooth colours [h, w, 3] over most of the range."""
    noise = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def encoded(picture: Image.Image, kind: str, **options) -> bytes:
    """The content of a file, by Pillow."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def png(
    pixels: np.ndarray,
    colour_type: int,
    before: Sequence[tuple[bytes, bytes]] = (),
    after: Sequence[tuple[bytes, bytes]] = (),
) -> bytes:
    """A PNG of 8 or 16 bits: colour type 0 grey, 2 RGB, 4 grey and alpha, 6 RGBA; with chunks."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    height, width = pixels.shape[:2]
    bits = 8 * pixels.dtype.itemsize
    rows = pixels.astype(pixels.dtype.newbyteorder(">"))
    head = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    chunks = (
        (b"IHDR", head),
        *before,
        (b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))),
        *after,
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks)


def tiff(
    pixels: np.ndarray,
    photometric: int,
    order: str = "<",
    *,
    planar: int = 1,
    bits: int | None = None,
    width: int | None = None,
) -> bytes:
    """An uncompressed TIFF; photometric 0 and 1 grey from white or from black, 2 RGB.

    Args:
      pixels: [h, w] or [h, w, c], unsigned, signed or floating.
      photometric: the tag.
      order: "<" or ">", of bytes.
      planar: 2: one channel after the other.
      bits, width: of packed pixels.
    """
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    parts = [pixels] if planar == 1 else list(np.moveaxis(pixels, -1, 0))
    strips = [part.astype(part.dtype.newbyteorder(order)).tobytes() for part in parts]
    bits = bits or 8 * pixels.dtype.itemsize
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    short, long, height = "H", "I", pixels.shape[0]
    tags = {
        256: (long, [width or pixels.shape[1]]), 257: (long, [height]),
        258: (short, [bits] * channels), 259: (short, [1]), 262: (short, [photometric]),
        273: (long, [0] * len(strips)), 277: (short, [channels]), 278: (long, [height]),
        279: (long, [len(strip) for strip in strips]), 284: (short, [planar]),
        339: (short, [kind] * channels),
    }  # fmt: skip
    room = 8 + 2 + 12 * len(tags) + 4  # values of more than 4 bytes follow the directory
    far = sum(4 * len(values) for _, values in tags.values() if len(values) > 1)
    places = np.cumsum([room + far, *map(len, strips)])[:-1]
    tags[273] = (long, places.tolist())
    entries, behind = b"", b""
    for tag, (letter, values) in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(values)}{letter}", *values)
        if len(packed) > 4:
            content = struct.pack(order + "I", room + len(behind))
            behind += packed.ljust(4 * len(values), b"\0")
        else:
            content = packed.ljust(4, b"\0")
        number = {short: 3, long: 4}[letter]
        entries += struct.pack(order + "HHI", tag, number, len(values)) + content
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(tags))
    head = start + entries + bytes(4) + behind
    return head.ljust(room + far, b"\0") + b"".join(strips)


def without_adobe_marker(jpeg: bytes) -> bytes:
    """A JPEG without its APP14 segment."""
    place = jpeg.index(b"\xff\xee")
    return jpeg[:place] + jpeg[place + 2 + int.from_bytes(jpeg[place + 2 : place + 4]) :]


WHITE_D65, WHITE_D50 = (0.3127, 0.3290), np.array([0.9642, 1.0, 0.8249])
PRIMARIES = {
    "sRGB": ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)),
    "Display P3": ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)),
    "Adobe RGB": ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)),
    "ProPhoto": ((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001)),
}
"""xy of red, green and blue."""

_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


def to_xyz(name: str) -> np.ndarray:
    """The matrix from linear RGB to XYZ of D50, after the ICC specification."""

    def xyz(x: float, y: float) -> np.ndarray:
        return np.array([x / y, 1, (1 - x - y) / y])

    white = xyz(*((0.3457, 0.3585) if name == "ProPhoto" else WHITE_D65))
    primaries = np.stack([xyz(*one) for one in PRIMARIES[name]], 1)
    scale = np.diag((_BRADFORD @ WHITE_D50) / (_BRADFORD @ white))
    adapted = np.linalg.inv(_BRADFORD) @ scale @ _BRADFORD
    return adapted @ (primaries * np.linalg.solve(primaries, white))


def linear(encoded_values: np.ndarray) -> np.ndarray:
    """sRGB in [0, 1] to linear light."""
    low = encoded_values / 12.92
    return np.where(encoded_values <= 0.04045, low, ((encoded_values + 0.055) / 1.055) ** 2.4)


def nonlinear(light: np.ndarray) -> np.ndarray:
    """Linear light to sRGB in [0, 1]."""
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def rgb_profile(name: str, gamma: float | None = None) -> bytes:
    """The ICC profile of a matrix space with a gamma (a multiple of 1/256); None: sRGB's curve."""
    tags = {}
    for letter, column in zip("rgb", to_xyz(name).T):
        tags[f"{letter}XYZ"] = b"XYZ " + bytes(4) + _fixed(*column)
        tags[f"{letter}TRC"] = _curve(gamma)
    return _icc(tags, b"mntr", b"RGB ", b"XYZ ")


def grey_profile(gamma: float) -> bytes:
    """The ICC profile of greys with a gamma."""
    return _icc({"kTRC": _curve(gamma)}, b"mntr", b"GRAY", b"XYZ ")


def cmyk_profile(corners: np.ndarray) -> bytes:
    """The ICC profile of a printer.

    Args:
      corners: Lab, 8 bits with a and b + 128, of no and full ink: [2, 2, 2, 2, 3], C first.
    """
    ramp = bytes(range(256))
    table = struct.pack(">4s4xBBBx", b"mft1", 4, 3, 2) + _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    table += 4 * ramp + corners.astype(np.uint8).tobytes() + 3 * ramp
    return _icc({"A2B0": table}, b"prtr", b"CMYK", b"Lab ")


def _fixed(*numbers: float) -> bytes:
    return b"".join(struct.pack(">i", round(number * 65536)) for number in numbers)


def _curve(gamma: float | None) -> bytes:
    if gamma is not None:
        return struct.pack(">4s4xIH", b"curv", 1, round(gamma * 256))
    values = np.rint(linear(np.linspace(0, 1, 1024)) * 65535).astype(">u2")
    return struct.pack(">4s4xI", b"curv", len(values)) + values.tobytes()


def _icc(tags: dict[str, bytes], kind: bytes, space: bytes, connection: bytes) -> bytes:
    tags = tags | {
        "desc": struct.pack(">4s4xI", b"desc", 5) + b"test\0" + bytes(78),
        "cprt": b"text" + bytes(4) + b"none\0",
        "wtpt": b"XYZ " + bytes(4) + _fixed(*WHITE_D50),
    }
    start = 128 + 4 + 12 * len(tags)
    table, content = struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        value += bytes(-len(value) % 4)
        table += struct.pack(">4sII", name.encode(), start + len(content), len(value))
        content += value
    size = start + len(content)
    head = struct.pack(
        ">I4sI4s4s4s12x4s", size, b"test", 0x02400000, kind, space, connection, b"acsp"
    )
    return head.ljust(68, b"\0") + _fixed(*WHITE_D50).ljust(60, b"\0") + table + content
