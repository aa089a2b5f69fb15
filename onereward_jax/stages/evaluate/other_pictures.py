"""Images of the further editors of `config.evaluate.editors`: generated here, or from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from onereward_jax.chain.stage import StageContext
from onereward_jax.common.listing import listed
from onereward_jax.data.metadata import by
from onereward_jax.data.triplets import Triplets
from onereward_jax.parallel import is_writer
from onereward_jax.pictures import read_picture
from onereward_jax.stages.compared_editors import FIELD, OtherEditor, other_editors
from onereward_jax.stages.evaluate.compared_edits import PICTURES, Pictures


def other_pictures(
    context: StageContext, triplets: Triplets, rows: Sequence[int]
) -> tuple[dict[str, Pictures], list[tuple[Pictures, Path]]]:
    """The images of all other editors by name, and those to generate, with their weights' folder.

    Folders of images are named after the editor's content, so changed weights generate new ones.
    Finished images are copied; triplets without one are not compared.

    Args:
      context: context of the stage.
      triplets, rows: the compared triplets.

    Raises:
      ValueError: as `other_editors`; finished images cannot be read, have another size than their
        triplet, or belong to no compared triplet.
    """
    ids = triplets.column("id")
    names = {row: ids[row] for row in rows}
    found, to_generate = {}, []
    for editor in other_editors(context.config):
        folder = context.folder / PICTURES / f"{editor.name}-{editor.digest[:8]}"
        pictures = Pictures(folder, names)
        if editor.finished:
            files = editor.images()
            pictures = Pictures(folder, {row: name for row, name in names.items() if name in files})
            if is_writer():
                _copy(editor, files, pictures, triplets)
        else:
            to_generate.append((pictures, editor.folder))
        found[editor.name] = pictures
    return found, to_generate


def _copy(
    editor: OtherEditor, files: dict[str, Path], pictures: Pictures, triplets: Triplets
) -> None:
    """Writes the finished images of the compared triplets as upright RGB. Raises ValueError."""
    if not pictures.names:
        raise ValueError(
            f"{FIELD}: no image in {editor.folder} is named after a compared triplet, such as "
            f"{triplets.column('id')[0]}.png"
        )
    errors = []
    for row, name in pictures.names.items():
        if pictures.path(row).exists():
            continue
        height, width = (int(side) for side in triplets.sizes[row])
        try:
            picture = read_picture(files[name], files[name].name)
        except (OSError, ValueError) as error:
            errors.append(str(error))
            continue
        if picture.size != (width, height):
            told = f"{by(picture.size)} pixels, its triplet {by((width, height))}"
            errors.append(f"{files[name].name} is {told}")
            continue
        pictures.write(row, np.asarray(picture))
    if errors:
        told = f"{FIELD}: {len(errors)} bad image{'s' * (len(errors) > 1)} in {editor.folder}"
        raise ValueError(told + listed(errors))
