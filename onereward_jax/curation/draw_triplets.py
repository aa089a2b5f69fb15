"""A task, a mask and a prompt for each picture, drawn with the weights of the config.

Nothing is invented: a picture gets a task only if what is known of it serves the task.

task                    masks                      prompt              target
fill                    boxes, strokes             its caption         none
fill                    silhouettes                the category's name none
fill                    words                      the word "SALE"     none
extend_with_prompt      borders                    its caption         the picture itself
extend_without_prompt   borders                    fixed               the picture itself
removal                 silhouettes, boxes         fixed               none

The picture is the truth of an extension, because its borders are what was there. It is not the
truth of the other tasks: nobody knows the picture without the object; and a caption does not tell
what is in a box, so that another filling may be as right. Silhouettes of unnamed objects (PNG
masks) take the caption as their prompt. Crowds are removed, but not filled.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np

from onereward_jax.curation.mask_makers import (
    Mask,
    Range,
    grown_box,
    grown_outline,
    random_borders,
    random_box,
    random_strokes,
)
from onereward_jax.curation.segmentation import GivenObject
from onereward_jax.curation.words_and_captions import Word
from onereward_jax.data.aspect_buckets import Size
from onereward_jax.data.boxes import bounding_box
from onereward_jax.data.example import RowError
from onereward_jax.tasks import Task

T = TypeVar("T")

ATTEMPTS = 8
"""Masks that are drawn, at most, until one is usable."""

EXTENSIONS = (Task.EXTEND_WITH_PROMPT, Task.EXTEND_WITHOUT_PROMPT)


@dataclasses.dataclass(frozen=True)
class MaskSettings:
    """The section `config.curate`, as far as it is about masks.

    Attributes:
      tasks: weight of each task.
      kinds: weight of each kind of mask, per task.
      area: range of the area of a box, of strokes and of an object, as a share of the picture's; a
        word may be smaller.
      border: range of an extended border, as a share of the picture's shorter side.
      grow: how far outlines and boxes of objects and words are grown, as a share of that side.
    """

    tasks: Mapping[Task, float]
    kinds: Mapping[Task, Mapping[str, float]]
    area: Range
    border: Range
    grow: float


@dataclasses.dataclass(frozen=True)
class Known:
    """What is known of a picture.

    Attributes:
      name: of the picture, for remarks.
      size: height and width of the upright picture in pixels.
      objects: from a segmentation.
      words: written in it.
      caption: "" if there is none.
    """

    name: str
    size: Size
    objects: Sequence[GivenObject] = ()
    words: Sequence[Word] = ()
    caption: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Drawn:
    """A triplet of a picture.

    Attributes:
      task: the editing task.
      kind: kind of the mask, e.g. "strokes".
      mask: True where the picture is edited.
      prompt: None for the fixed prompt of the task.
      has_target: whether the picture itself is the truth of the edit.
      wanted: the task drawn first; another one if the picture could not serve it.
    """

    task: Task
    kind: str
    mask: Mask
    prompt: str | None
    has_target: bool
    wanted: Task


def draw_triplets(
    rngs: Iterable[np.random.Generator],
    known: Known,
    settings: MaskSettings,
    usable: Callable[[Mask], bool],
    remark: Callable[[str], object] = lambda text: None,
) -> list[Drawn]:
    """Draws a triplet with each generator, as `draw_triplet`; no two have the same mask."""
    drawn: list[Drawn] = []
    used: set[bytes] = set()

    def is_new(mask: Mask) -> bool:
        return np.packbits(mask).tobytes() not in used and usable(mask)

    for rng in rngs:
        found = draw_triplet(rng, known, settings, is_new, remark)
        if found is not None:
            drawn.append(found)
            used.add(np.packbits(found.mask).tobytes())
    return drawn


def draw_triplet(
    rng: np.random.Generator,
    known: Known,
    settings: MaskSettings,
    usable: Callable[[Mask], bool],
    remark: Callable[[str], object] = lambda text: None,
) -> Drawn | None:
    """Draws a triplet; None if the picture serves no task that has a weight.

    Args:
      rng: source of all draws.
      known: what is known of the picture.
      settings: weights and ranges.
      usable: whether a mask is still one after the stage `data` has cropped the picture.
      remark: called with what is wrong with an outline, which is then not used.
    """
    order = _shuffled(rng, settings.tasks)
    for task in order:
        for kind in _shuffled(rng, settings.kinds[task]):
            for mask, prompt in _masks(rng, task, kind, known, settings, remark):
                if usable(mask):
                    return Drawn(task, kind, mask, prompt, task in EXTENSIONS, order[0])
    return None


def serves(task: Task, kind: str, known: Known) -> bool:
    """Whether a picture has what a kind of mask of a task needs, before a mask is made."""
    if task is Task.REMOVAL:
        return bool(known.objects)
    if task is Task.FILL and kind == "words":
        return bool(known.words)
    if task is Task.FILL and kind == "silhouettes":
        return any(_prompt_of(one, known) for one in known.objects)
    return task is Task.EXTEND_WITHOUT_PROMPT or known.caption != ""


def _masks(
    rng: np.random.Generator,
    task: Task,
    kind: str,
    known: Known,
    settings: MaskSettings,
    remark: Callable[[str], object],
) -> Iterator[tuple[Mask, str | None]]:
    """Yields up to `ATTEMPTS` masks with their prompts."""
    if not serves(task, kind, known):
        return
    size = known.size
    if task in EXTENSIONS:
        prompt = known.caption if task is Task.EXTEND_WITH_PROMPT else None
        for _ in range(ATTEMPTS):
            yield random_borders(rng, size, settings.border, all_sides=kind == "all_sides"), prompt
    elif kind == "words":
        for place in rng.permutation(len(known.words))[:ATTEMPTS].tolist():
            word = known.words[place]
            mask = grown_box(size, word.box, settings.grow)
            if 0 < mask.mean() <= settings.area[1]:
                yield mask, f'the word "{word.text}"'
    elif kind == "silhouettes" or task is Task.REMOVAL:
        yield from _object_masks(rng, task, kind, known, settings, remark)
    else:
        make = random_box if kind == "boxes" else random_strokes
        for _ in range(ATTEMPTS):
            yield make(rng, size, settings.area), known.caption


def _object_masks(
    rng: np.random.Generator,
    task: Task,
    kind: str,
    known: Known,
    settings: MaskSettings,
    remark: Callable[[str], object],
) -> Iterator[tuple[Mask, str | None]]:
    """Masks of objects in random order, with the prompt of a fill."""
    least, most = settings.area
    for place in rng.permutation(len(known.objects))[:ATTEMPTS].tolist():
        one = known.objects[place]
        prompt = _prompt_of(one, known) if task is Task.FILL else None
        if task is Task.FILL and not prompt:
            continue
        try:
            outline = one.mask(known.size)
        except RowError as error:
            remark(f"the segmentation of {known.name}: {error}")
            continue
        if kind == "boxes":
            mask = grown_box(known.size, bounding_box(outline), settings.grow)
        else:
            mask = grown_outline(outline, settings.grow)
        if least <= mask.mean() <= most:
            yield mask, prompt


def _prompt_of(one: GivenObject, known: Known) -> str:
    return "" if one.is_crowd else one.label or known.caption


def _shuffled(rng: np.random.Generator, weights: Mapping[T, float]) -> list[T]:
    """The keys whose weight is above 0, in a random order that begins in proportion to weights."""
    keys = {key: rng.random() ** (1 / weight) for key, weight in weights.items() if weight > 0}
    return sorted(keys, key=keys.get, reverse=True)
