"""The edit that the pictures of a labelled pair are results of: its source picture and its mask.

Of the run's own pairs they are in the triplets, of an imported pair in its preferences folder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from onereward_jax.annotation.labelled_pairs import LabelledPair
from onereward_jax.chain.stage import StageContext
from onereward_jax.data.aspect_buckets import Size
from onereward_jax.pictures.mask_reading import EDITED, read_mask
from onereward_jax.stages.collect_pairs import picture_folders
from onereward_jax.stages.data import open_triplets
from onereward_jax.stages.judged_size import crop_box, judged_pixels
from onereward_jax.stages.own_candidates import is_own


class EditsOfPairs(NamedTuple):
    """Functions that read the edit of a pair, at the pair's size.

    Attributes:
      mask: True where the source picture is edited.
      source: the source picture.
    """

    mask: Callable[[LabelledPair], Bool[np.ndarray, "h w"]]
    source: Callable[[LabelledPair], UInt8[np.ndarray, "h w 3"]]


def edits_of_pairs(context: StageContext, pairs: Sequence[LabelledPair]) -> EditsOfPairs:
    """Opens what the edits of `pairs` are read from; reads none yet."""
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

    def source_of(pair: LabelledPair) -> UInt8[np.ndarray, "h w 3"]:
        if not is_own(pair):
            return judged_pixels(folders[pair.folder] / pair.image, pair.size)
        row = rows[pair.split][pair.source]
        return triplets[pair.split].read(row, ["image"])["image"]

    return EditsOfPairs(mask_of, source_of)


def mask_at(path: Path, size: Size) -> Bool[np.ndarray, "h w"]:
    """The mask in a file, cropped and resized as `judged_pixels` does pictures.

    True wherever a pixel of the file below is to be edited, so that no thin line is lost.
    """
    mask, (height, width) = read_mask(path), size
    edited = Image.fromarray((np.asarray(mask) >= EDITED).astype(np.float32))
    box = crop_box(mask.size, width / height)
    return np.asarray(edited.resize((width, height), Image.Resampling.BOX, box=box)) > 1e-6
