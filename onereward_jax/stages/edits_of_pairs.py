"""The edit that the pictures of a labelled pair are results of: its source picture and its mask.

Of the run's own pairs they are in the triplets, of an imported pair in its preferences folder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from PIL import Image

from onereward_jax.annotation.labelled_pairs import LabelledPair
from onereward_jax.chain.stage import StageContext
from onereward_jax.data.aspect_buckets import Size
from onereward_jax.pictures.mask_reading import EDITED, read_mask
from onereward_jax.stages.collect_pairs import picture_folders
from onereward_jax.stages.data import open_triplets
from onereward_jax.stages.judged_size import crop_box
from onereward_jax.stages.own_candidates import is_own

MaskOf = Callable[[LabelledPair], Bool[np.ndarray, "h w"]]
"""The mask of a pair, at the pair's size: True where the source is edited."""


def mask_reader(context: StageContext, pairs: Sequence[LabelledPair]) -> MaskOf:
    """A function that reads the masks of pairs; opens what it reads from, but reads none yet."""
    folders = picture_folders(context)
    splits = {pair.split for pair in pairs if is_own(pair)}
    triplets = {split: open_triplets(context, split) for split in splits}
    rows = {
        split: {name: row for row, name in enumerate(found.column("id"))}
        for split, found in triplets.items()
    }

    def mask_of(pair: LabelledPair) -> Bool[np.ndarray, "h w"]:
        if not is_own(pair):
            return mask_at(folders[pair.folder] / pair.mask, pair.size)
        row = rows[pair.split][pair.source]
        return triplets[pair.split].read(row, ["mask"])["mask"][..., 0] >= EDITED

    return mask_of


def mask_at(path: Path, size: Size) -> Bool[np.ndarray, "h w"]:
    """The mask in a file, cropped and resized as `judged_pixels` does pictures.

    True wherever a pixel of the file below is to be edited, so that no thin line is lost.
    """
    mask, (height, width) = read_mask(path), size
    edited = Image.fromarray((np.asarray(mask) >= EDITED).astype(np.float32))
    box = crop_box(mask.size, width / height)
    return np.asarray(edited.resize((width, height), Image.Resampling.BOX, box=box)) > 1e-6
