"""Embeddings of many pictures, batch by batch, kept in files: a killed run loses one batch.

    embeddings/00000.npz   of a batch: digests, embeddings, sizes, contrasts, errors

A picture is known by the digest of its file, so that a renamed picture is not embedded again.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int32
from PIL import Image, UnidentifiedImageError

from onereward_jax.common.atomic_file import atomic_file
from onereward_jax.curation.clip_embedder import ClipEmbedder
from onereward_jax.pictures import read_picture
from onereward_jax.pictures.opening import reason

AHEAD = 2
"""Batches that are decoded in advance; with the threads, they bound the memory."""

CONTRAST_SIDE = 64
"""A picture is reduced to this side before its contrast is measured: noise does not count."""


@dataclasses.dataclass(frozen=True)
class Embedded:
    """What is known of pictures, in the order of their digests.

    Attributes:
      digests: of the files.
      embeddings: of length 1; zeros for an unreadable picture.
      sizes: height and width of the upright picture in pixels; zeros if unreadable.
      contrasts: standard deviation of the luminance, in grey levels from 0 to 255.
      errors: why a picture is unreadable; "" if it is not.
    """

    digests: Sequence[str]
    embeddings: Float32[np.ndarray, "n e"]
    sizes: Int32[np.ndarray, "n 2"]
    contrasts: Float32[np.ndarray, "n"]
    errors: Sequence[str]


@dataclasses.dataclass(frozen=True)
class _Decoded:
    pixels: Float32[np.ndarray, "s s 3"] | None
    size: tuple[int, int] = (0, 0)
    contrast: float = 0.0
    error: str = ""


def embed_pictures(
    files: Mapping[str, Path], folder: Path, embedder: ClipEmbedder, *, threads: int
) -> Iterator[int]:
    """Embeds pictures that `folder` does not have yet; yields after each saved batch.

    Batches are cut in the order of `files`, so a resumed run computes the same batches as an
    uninterrupted one.

    Args:
      files: digest -> file, for pictures that are not in `folder`.
      folder: where the embeddings are kept.
      embedder: the loaded model.
      threads: pictures that are decoded at the same time.

    Yields:
      The number of pictures of the batch.
    """
    digests, size = list(files), embedder.batch_size
    batches = [digests[start : start + size] for start in range(0, len(digests), size)]
    number = 1 + max((int(path.stem) for path in _files(folder)), default=-1)
    blank = np.zeros((embedder.preprocess.crop, embedder.preprocess.crop, 3), np.float32)
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[list[Future[_Decoded]]] = deque()

        def prepare(batch: Sequence[str]) -> None:
            waiting.append([pool.submit(_decode, files[one], embedder) for one in batch])

        for batch in batches[:AHEAD]:
            prepare(batch)
        for place, batch in enumerate(batches):
            found = [future.result() for future in waiting.popleft()]
            for later in batches[place + AHEAD : place + AHEAD + 1]:
                prepare(later)
            pixels = np.stack([blank if one.pixels is None else one.pixels for one in found])
            readable = np.array([[one.pixels is not None] for one in found])
            embeddings = np.where(readable, embedder(pixels), np.float32(0))
            _save(folder / f"{number + place:05}.npz", batch, embeddings, found)
            yield len(batch)


def known_digests(folder: Path) -> set[str]:
    """Digests of the pictures that have been embedded."""
    return {digest for part in _parts(folder) for digest in part["digests"].tolist()}


def read_embeddings(folder: Path, digests: Sequence[str]) -> Embedded:
    """What is known of these pictures.

    Raises:
      KeyError: one of them has not been embedded.
    """
    rows: dict[str, tuple[int, int]] = {}
    parts = _parts(folder)
    for number, part in enumerate(parts):
        rows |= {digest: (number, row) for row, digest in enumerate(part["digests"].tolist())}
    places = [rows[digest] for digest in digests]

    def column(name: str) -> np.ndarray:
        return np.stack([parts[number][name][row] for number, row in places])

    return Embedded(
        list(digests),
        column("embeddings"),
        column("sizes"),
        column("contrasts"),
        column("errors").tolist(),
    )


def _files(folder: Path) -> list[Path]:
    """The finished files; a killed process may leave a hidden one."""
    return sorted(path for path in folder.glob("*.npz") if not path.name.startswith("."))


def _parts(folder: Path) -> list[dict[str, np.ndarray]]:
    parts = []
    for path in _files(folder):
        with np.load(path, allow_pickle=False) as part:
            parts.append(dict(part))
    return parts


def _save(
    path: Path,
    digests: Sequence[str],
    embeddings: Float32[np.ndarray, "b e"],
    decoded: Sequence[_Decoded],
) -> None:
    with atomic_file(path, sync=True) as draft:
        np.savez(
            draft,
            digests=np.array(digests),
            embeddings=embeddings,
            sizes=np.array([one.size for one in decoded], np.int32),
            contrasts=np.array([one.contrast for one in decoded], np.float32),
            errors=np.array([one.error for one in decoded]),
        )


def _decode(path: Path, embedder: ClipEmbedder) -> _Decoded:
    """Reads a picture; one that cannot be read has an error instead of pixels."""
    try:
        picture = read_picture(path)
        grey = picture.convert("L").resize((CONTRAST_SIDE, CONTRAST_SIDE), Image.Resampling.BOX)
        contrast = float(np.asarray(grey, np.float32).std())
        pixels = embedder.preprocess(picture)
        return _Decoded(pixels, (picture.height, picture.width), contrast)
    except (OSError, ValueError) as error:
        cause = error.__cause__ or error
        unknown = isinstance(cause, UnidentifiedImageError)
        return _Decoded(None, error="not a picture" if unknown else reason(cause))
