"""What the stage `curate` reads: the section `config.curate`, and the files that it names."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ml_collections import FrozenConfigDict

from onereward_jax.convert import resolve_folder
from onereward_jax.data.aspect_buckets import Size, bucket_sizes
from onereward_jax.data.picture_files import SUFFIXES, files_below
from onereward_jax.storage import local_path
from onereward_jax.tasks import PAPER_TASKS, Task

if TYPE_CHECKING:
    from onereward_jax.curation.draw_triplets import MaskSettings
    from onereward_jax.curation.known import Notes

KINDS = {
    "fill": ("boxes", "strokes", "silhouettes", "words"),
    "extend": ("all_sides", "some_sides"),
    "removal": ("silhouettes", "boxes"),
}
"""Section of `config.curate` -> its kinds of masks."""

SECTIONS = {
    Task.FILL: "fill",
    Task.EXTEND_WITH_PROMPT: "extend",
    Task.EXTEND_WITHOUT_PROMPT: "extend",
    Task.REMOVAL: "removal",
}

T = TypeVar("T")


def pictures_folder(config: FrozenConfigDict) -> Path:
    """The folder `config.curate.pictures`; expands "~".

    Raises:
      ValueError: the field is empty.
      FileNotFoundError: there is no such folder.
    """
    name = config.curate.pictures
    if not name:
        raise ValueError("config.curate.pictures is empty: name the folder of your pictures")
    folder = local_path(name, again=False)
    if not folder.is_dir():
        raise FileNotFoundError(f"config.curate.pictures is {name!r}: there is no such folder")
    return folder


def clip_folder(config: FrozenConfigDict) -> Path:
    """The folder of CLIP.

    Raises:
      ValueError: the field is empty.
      FileNotFoundError: there is no such folder.
    """
    if not config.curate.clip:
        raise ValueError(
            "config.curate.clip is empty: name a folder of CLIP in transformers' format"
        )
    return resolve_folder(config.curate.clip, "config.curate.clip")


def mask_settings(config: FrozenConfigDict) -> MaskSettings:
    """The weights and ranges of masks.

    Raises:
      ValueError: all tasks, or all masks of a task, have the weight 0; or nothing that is given
        serves any task.
    """
    from onereward_jax.curation.draw_triplets import MaskSettings

    section = config.curate
    kinds = {
        task: {kind: section[name][kind] for kind in KINDS[name]} for task, name in SECTIONS.items()
    }
    tasks = {task: section.tasks[task.value] for task in PAPER_TASKS}
    if not any(tasks.values()):
        raise ValueError("config.curate.tasks: all weights are 0")
    for task, weight in tasks.items():
        if weight and not any(kinds[task].values()):
            raise ValueError(
                f"config.curate.{SECTIONS[task]}: all weights are 0, but config.curate.tasks."
                f"{task.value} is {weight}"
            )
    if [task for task, weight in tasks.items() if weight] == [Task.REMOVAL]:
        if not section.segmentation:
            raise ValueError(
                "config.curate.segmentation is empty, but only removal has a weight in "
                "config.curate.tasks"
            )
    return MaskSettings(tasks, kinds, section.area, section.border, section.grow)


def buckets(config: FrozenConfigDict) -> tuple[Size, ...]:
    """The sizes that the stage `data` crops pictures to. Raises ValueError, naming the field."""
    try:
        return bucket_sizes(config.data.image_size, tuple(config.data.aspect_ratios))
    except ValueError as error:
        raise ValueError(f"config.data.{error}") from None


def read_notes(config: FrozenConfigDict, names: Collection[str]) -> Notes:
    """Reads the segmentation, the words and the captions, of the pictures `names`.

    Raises:
      ValueError: files are missing or bad (all are listed).
    """
    from onereward_jax.curation.known import Notes
    from onereward_jax.curation.segmentation import read_segmentation
    from onereward_jax.curation.words_and_captions import read_captions, read_words

    problems: list[str] = []

    def read(field: str, reader: Callable[..., Mapping[str, T]]) -> Mapping[str, T]:
        if not config.curate[field]:
            return {}
        path = local_path(config.curate[field])
        return named(problems, f"config.curate.{field}", reader, path, names) or {}

    notes = Notes(
        read("segmentation", read_segmentation),
        read("words", read_words),
        read("captions", read_captions),
    )
    if problems:
        raise ValueError("\n".join(problems))
    return notes


def named(problems: list[str], field: str, call: Callable[..., T], *arguments: object) -> T | None:
    """Calls a function; its error becomes a line of `problems` that begins with the field."""
    try:
        return call(*arguments)
    except (ValueError, OSError) as error:
        text = str(error)
        problems.append(text if text.startswith("config.") else f"{field}: {text}")
        return None


def check_folder(config: FrozenConfigDict, workdir: Path) -> list[str]:
    """The names of the pictures.

    Raises:
      FileNotFoundError, ValueError: as `pictures_folder`; or there are fewer pictures than
        clusters; or the work folder or the masks are among the pictures.
    """
    folder, section = pictures_folder(config), config.curate
    masks = local_path(section.segmentation, again=False) if section.segmentation else None
    for other, what in ((workdir, "--workdir"), (masks, "config.curate.segmentation")):
        if other is not None and other.resolve().is_relative_to(folder.resolve()):
            if other is workdir or other.is_dir():
                raise ValueError(
                    f"{what} is in the folder config.curate.pictures: its pictures would be chosen"
                )
    names = files_below(folder, SUFFIXES)
    if len(names) < section.clusters:
        raise ValueError(
            f"config.curate.clusters is {section.clusters}, but there are {len(names)} pictures in "
            f"{section.pictures} ({', '.join(SUFFIXES)})"
        )
    return names
