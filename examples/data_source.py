"""A custom data source: photographs, each with a piece of another photograph pasted into it.

The task is to remove the piece. The perfect result is known: the original photograph. An annotator
that compares with it (`examples/annotator.py`) can replace people.

    python -m onereward_jax.main --config=configs/mini.py:folder --workdir=runs/pasted \
      --config.data.source=examples/data_source.py --config.data.path=photos \
      --config.annotate.by=examples/annotator.py
"""

import pathlib

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from onereward_jax.chain.allowed_values import NAMED
from onereward_jax.common.rng import generator
from onereward_jax.data.boxes import bounding_box
from onereward_jax.data.example import Example, RowError
from onereward_jax.pictures import read_picture
from onereward_jax.tasks import FIXED_PROMPTS, Task

FIELDS = {"data.path": NAMED}  # fields that this file reads, in addition to the stage's

PICTURES = (".jpg", ".jpeg", ".png", ".webp")
MASKS_PER_PHOTO = 4
TEST_EVERY = 5  # every fifth photograph is in the test split


class PastedPieces:
    """Triplets made of photographs: `MASKS_PER_PHOTO` consecutive rows per photograph."""

    def __init__(self, folder, image_size, seed):
        self.photos = sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURES)
        self.image_size, self.seed = image_size, seed
        if len(self.photos) < TEST_EVERY:
            raise ValueError(f"config.data.path: {folder} has fewer than {TEST_EVERY} photographs")

    @property
    def sizes(self):
        """All images are squares of one size."""
        return ((self.image_size, self.image_size),)

    @property
    def splits(self):
        """All rows of a photograph are in the same split."""
        numbers = range(len(self.photos) * MASKS_PER_PHOTO)
        first = [number // MASKS_PER_PHOTO % TEST_EVERY == 0 for number in numbers]
        return tuple("test" if one else "train" for one in first)

    def example(self, row):
        """The triplet of a row; deterministic, because the row number seeds the random draws."""
        number, rng = row // MASKS_PER_PHOTO, generator(self.seed, "pasted", row)
        other = (number + rng.integers(1, len(self.photos))) % len(self.photos)
        photo, piece = self.read(self.photos[number]), self.read(self.photos[other])
        mask = self.draw_mask(rng)
        return Example(
            image=np.where(mask[..., None] > 0, piece, photo),
            mask=mask,
            has_target=True,
            target=photo,
            background=photo,
            prompt=FIXED_PROMPTS[Task.REMOVAL],
            task=Task.REMOVAL,
            kind="object",
            label="",
            box=bounding_box(mask > 0),
            photo=self.photos[number].name,
        )

    def draw_mask(self, rng):
        """A random ellipse: 255 inside, 0 outside."""
        side = self.image_size
        height, width = rng.integers(side // 4, side // 2, size=2)
        top, left = rng.integers(0, side - height), rng.integers(0, side - width)
        mask = Image.new("L", (side, side))
        ImageDraw.Draw(mask).ellipse((left, top, left + width, top + height), fill=255)
        return np.asarray(mask)

    def read(self, path):
        """The photograph, center-cropped to a square, uint8 [h, w, 3]."""
        try:
            picture = read_picture(path)
        except (OSError, ValueError) as error:
            raise RowError(str(error)) from error
        square = ImageOps.fit(picture, (self.image_size, self.image_size))
        return np.asarray(square)

    def refuse(self, errors):
        """Called with the RowError of each bad row, before anything is written."""
        if errors:
            raise ValueError("\n".join(sorted({str(error) for error in errors.values()})))


def make_source(config):
    """Returns the source; called by the stage `data` and before the first stage."""
    folder = pathlib.Path(config.data.path)
    if not folder.is_dir():
        raise FileNotFoundError(f"config.data.path is {config.data.path!r}: no such folder")
    return PastedPieces(folder, config.data.image_size, config.seed)


def describe(config):
    """Text for the model card."""
    return "photographs with pieces of others pasted into them"
