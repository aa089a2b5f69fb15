"""The chunks of PNG files: checksums that Pillow does not compare, and metadata that it refuses.

Pillow decodes pixels whose checksum is wrong, and gives up a whole picture because of a damaged
comment. Here it is the other way round.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

SIGNATURE = b"\x89PNG\r\n\x1a\n"
PIXELS = (b"PLTE", b"IDAT")
TEXTS = (b"tEXt", b"zTXt", b"iTXt")

LONGEST_TEXT = 1 << 20
"""Bytes of a text, inflated; Pillow refuses pictures with longer ones. Prompts are shorter."""

File = Any
"""A seekable binary file: what Pillow takes."""

_READ = 1 << 20


class Chunk(NamedTuple):
    """A chunk: its kind, where its content begins in the file, and the length of that."""

    kind: bytes
    start: int
    length: int


def chunks(file: File) -> Iterator[Chunk]:
    """The chunks of a PNG file, from their headers, up to its end or to where it is cut."""
    place = len(SIGNATURE)
    while True:
        file.seek(place)
        head = file.read(8)
        if len(head) < 8:
            return
        length, kind = struct.unpack(">I4s", head)
        yield Chunk(kind, place + 8, length)
        place += 8 + length + 4


def check_pixels(file: File) -> None:
    """Raises ValueError if a checksum of palette or pixels is wrong; keeps the place."""
    place = file.tell()
    try:
        for chunk in chunks(file):
            if chunk.kind in PIXELS and not _is_whole(file, chunk):
                raise ValueError("damaged: a checksum of its pixels is wrong")
    finally:
        file.seek(place)


def has_late_texts(file: File) -> bool:
    """Whether metadata follow the pixels; keeps the place in the file."""
    place, kinds = file.tell(), []
    try:
        kinds = [chunk.kind for chunk in chunks(file)]
    finally:
        file.seek(place)
    behind = kinds[kinds.index(b"IDAT") :] if b"IDAT" in kinds else []
    return any(kind in (*TEXTS, b"eXIf") for kind in behind)


def without_bad_texts(file: File) -> io.BytesIO | None:
    """The file without damaged or very long metadata; None if it has none, or is no PNG."""
    file.seek(0)
    if file.read(len(SIGNATURE)) != SIGNATURE:
        return None
    found = list(chunks(file))
    bad = {chunk for chunk in found if _is_bad(file, chunk)}
    if not bad:
        return None
    kept = [SIGNATURE]
    for chunk in found:
        if chunk not in bad:
            file.seek(chunk.start - 8)
            kept.append(file.read(8 + chunk.length + 4))
    return io.BytesIO(b"".join(kept))


def _is_bad(file: File, chunk: Chunk) -> bool:
    """Whether Pillow would refuse the picture because of this chunk, which has no pixels."""
    if not chunk.kind[0] & 32 or chunk.kind == b"tRNS":  # a lower-case letter: not critical
        return False
    if chunk.kind in TEXTS and chunk.length > LONGEST_TEXT:
        return True
    if not _is_whole(file, chunk):
        return True
    if chunk.kind not in (b"zTXt", b"iTXt", b"iCCP"):
        return False
    file.seek(chunk.start)
    _, _, content = file.read(chunk.length).partition(b"\0")
    if chunk.kind == b"iTXt":
        if content[:1] != b"\1":
            return False
        content = content[2:].partition(b"\0")[2].partition(b"\0")[2]
    else:
        content = content[1:]
    try:
        inflating = zlib.decompressobj()
        inflating.decompress(content, LONGEST_TEXT)
    except zlib.error:
        return True
    return bool(inflating.unconsumed_tail)


def _is_whole(file: File, chunk: Chunk) -> bool:
    file.seek(chunk.start)
    check, left = zlib.crc32(chunk.kind), chunk.length
    while left:
        part = file.read(min(left, _READ))
        if not part:
            return True  # cut: decoding says so
        check, left = zlib.crc32(part, check), left - len(part)
    stated = file.read(4)
    return len(stated) < 4 or int.from_bytes(stated) == check
