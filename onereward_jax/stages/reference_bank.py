"""The bank of references, `config.rl.references = "bank"`: pictures of π_ref, made before RL.

Algorithm 1 (arXiv 2508.21066) samples x_ref in every step from a noise ε1 drawn anew. The bank
has up to K = `config.rl.bank_size` pictures of each triplet, each from a noise of its own, and a
sample of the run gets one of them at random. For K -> ∞ that is Algorithm 1 to the letter: the
picture has the same distribution, whatever else is drawn, and is not seen twice.

Which picture a sample gets depends on (seed, number of the sample in the run) alone, so a resumed
run, and one on more hosts, goes on with the same ones. Only what the run draws is made: never more
pictures than the rollouts that they replace. The noise of a picture depends on the triplet's name
and the picture's index, not on the run: runs with other seeds or settings share the bank.

pictures/<triplet>-<index>.png    x_ref as the judge sees it, rounded to 8 bits
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from ml_collections import FrozenConfigDict
from PIL import Image, UnidentifiedImageError

from onereward_jax.chain.stage import StageContext
from onereward_jax.common.pixels import from_uint8
from onereward_jax.common.rng import generator
from onereward_jax.data.mixing import mixed_rows
from onereward_jax.data.pipeline import TripletSequence, to_sample
from onereward_jax.data.triplets import Triplets
from onereward_jax.stages.rl_rows import mixing_of, one_of_each

STAGE = "references"
"""The stage that makes the pictures."""


class Reference(NamedTuple):
    """A picture: row of its triplet in the training split, and index from 0 to K - 1."""

    row: int
    index: int


def picture_of(name: str, index: int) -> str:
    """Path of a picture in the folder of the stage; `name` is that of the triplet."""
    return f"pictures/{name}-{index}.png"


def noise_seed(name: str, index: int) -> int:
    """Seed of the noise ε1 of a picture, 31 bits; the same in all runs."""
    return int(generator(0, "reference", name, index).integers(2**31))


def drawn_index(config: FrozenConfigDict, number: int) -> int:
    """Index of the picture that sample `number` of the run gets."""
    return int(generator(config.seed, "reference", number).integers(config.rl.bank_size))


def drawn_references(config: FrozenConfigDict, triplets: TripletSequence) -> Iterator[Reference]:
    """The pictures that a run of `config.rl.steps` draws, one per sample, in order."""
    section = config.rl
    mixing = mixing_of(config, triplets)
    rows = mixed_rows(triplets.tasks, triplets.sizes, section.batch_size, config.seed, mixing)
    for number in range(section.steps * section.batch_size):
        yield Reference(int(rows[number]), drawn_index(config, number))


def needed_references(config: FrozenConfigDict, triplets: TripletSequence) -> list[Reference]:
    """The pictures that a run needs, each once: those it shows and those it draws."""
    shown = [Reference(row, 0) for row in one_of_each(config, triplets)]
    return list(dict.fromkeys([*shown, *drawn_references(config, triplets)]))


@dataclasses.dataclass(frozen=True)
class ReferenceBank:
    """The pictures that a run needs, and its triplets.

    Attributes:
      config: the full config.
      folder: of the stage `references`.
      triplets: those of the training split.
      names: of the triplets.
      first: row -> the first of its pictures that the run needs.
    """

    config: FrozenConfigDict
    folder: Path
    triplets: Triplets
    names: list[str]
    first: Mapping[int, int]

    @property
    def rows(self) -> list[int]:
        """The rows that have a picture."""
        return list(self.first)

    def sample(self, row: int, number: int) -> dict[str, Any]:
        """Sample `number` of the run, see `with_picture`."""
        return self.with_picture(row, drawn_index(self.config, number))

    def first_sample(self, row: int) -> dict[str, Any]:
        """The triplet of `row` with the first of its pictures that the run needs."""
        return self.with_picture(row, self.first[row])

    def with_picture(self, row: int, index: int) -> dict[str, Any]:
        """A triplet, with the fields of `to_sample` and those of a picture.

        reference: float32 [h, w, 3] in [-1, 1]; reference_seed: int32, the seed of its noise.
        """
        name = self.names[row]
        pixels = self._read(self.folder / picture_of(name, index), row)
        return to_sample(self.triplets, row) | {
            "reference": from_uint8(pixels),
            "reference_seed": np.int32(noise_seed(name, index)),
        }

    def _read(self, path: Path, row: int) -> UInt8[np.ndarray, "h w 3"]:
        advice = f"remove the output of the stage {STAGE} and run it again"
        try:
            with Image.open(path) as picture:
                pixels = np.asarray(picture)
        except (OSError, UnidentifiedImageError) as error:
            raise ValueError(
                f"{path}: a picture of the reference is missing or damaged: {advice}"
            ) from error
        expected = (*self.triplets.sizes[row].tolist(), 3)
        if pixels.shape != expected:
            raise ValueError(f"{path}: the picture is {pixels.shape}, not {expected}: {advice}")
        return pixels


def open_bank(context: StageContext, triplets: Triplets) -> ReferenceBank:
    """The bank of this run, which the stage `references` has filled."""
    first: dict[int, int] = {}
    for row, index in needed_references(context.config, triplets):
        first.setdefault(row, index)
    names = triplets.column("id")
    return ReferenceBank(context.config, context.output(STAGE), triplets, names, first)
