"""Edits of photographs in their own size and colours: in windows around the mask, pasted back.

A window is edited at the model's resolution (`crop_window`), in sRGB, and stitched into the
photograph in the photograph's own colour space, so that what is kept stays as it was, bit for bit.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool
from PIL import Image

from onereward_jax.data.aspect_buckets import MULTIPLE, Size
from onereward_jax.inference.batch_arguments import (
    Number,
    Pictures,
    Texts,
    as_integer,
    as_number,
    as_pictures,
    as_texts,
    only,
)
from onereward_jax.inference.crop_window import (
    CropWindow,
    check_context,
    crop_window,
    window_mask,
)
from onereward_jax.inference.edit_defaults import check_resolution
from onereward_jax.inference.editor import Editor
from onereward_jax.inference.mask_components import MaskArea, separate_areas, whole_area
from onereward_jax.inference.picture_io import check_shapes, editing_size, mask_pixels
from onereward_jax.inference.seeds import check_seeds
from onereward_jax.inference.stitch import colour_offset, paste_back, stitched, white
from onereward_jax.pictures import Photograph, mask_warning, read_mask, read_photograph
from onereward_jax.pictures.opening import warn_once

COMPONENTS = ("together", "each")

NEAR = 1 / 16
"""Areas closer than this share of the model's resolution are edited as one."""


@dataclasses.dataclass(frozen=True)
class Crop:
    """How windows are chosen.

    Attributes:
      context: side of the window over that of the masked area.
      components: "together": one window around all that is masked; "each": one window for each
        separate area, one after the other, from top to bottom.
      resolution: side in pixels of a square window as the model sees it, a multiple of 16; None:
        the editor's, `EditDefaults.resolution`.

    Raises:
      ValueError: one of them is out of range.
    """

    context: float = 2.0
    components: str = "together"
    resolution: int | None = None

    def __post_init__(self) -> None:
        check_context(self.context)
        check_resolution(self.resolution if self.resolution is not None else MULTIPLE)
        if self.components not in COMPONENTS:
            raise ValueError(
                f"components is {self.components!r}, one of {', '.join(COMPONENTS)} expected"
            )


@dataclasses.dataclass(frozen=True)
class PhotographEdit:
    """One edit.

    Attributes:
      photograph: the opened photograph.
      mask: mode L, 128 and more = edit here, of the same aspect ratio.
      prompt: the prompt.
      seed: noise seed; area k of the mask takes `seed` + k.
      name: of the photograph, in warnings.
    """

    photograph: Photograph
    mask: Image.Image
    prompt: str
    seed: int
    name: str = ""


@dataclasses.dataclass(frozen=True)
class EditPlan:
    """How photographs are edited.

    Attributes:
      crop: None: as a whole, in the size of the photograph or that of `sampling`.
      feather: blending width around the mask in pixels of the photograph; None: nothing is pasted
        back, the result is the model's.
      sampling: other arguments of `Editor.__call__`.

    Raises:
      ValueError: a crop that is not pasted back.
    """

    crop: Crop | None
    feather: int | None
    sampling: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.crop is not None and self.feather is None:
            raise ValueError("an edit in a window is pasted back: crop needs paste_back")
        if self.feather is not None and self.feather < 0:
            raise ValueError(f"feather is {self.feather}: at least 0 pixels expected")


@dataclasses.dataclass(frozen=True)
class ReadyEdit:
    """An edit whose mask fits its photograph.

    Attributes:
      edit: the edit.
      windows: the areas of its mask with their windows; () without a crop.
    """

    edit: PhotographEdit
    windows: Sequence[tuple[MaskArea, CropWindow]]

    @property
    def rounds(self) -> int:
        """How often the editor is called for it."""
        return max(len(self.windows), 1)


def edit_photograph(
    editor: Editor,
    image: Pictures,
    mask: Pictures,
    prompt: Texts,
    *,
    context: Number = 2.0,
    components: str = "together",
    resolution: Number | None = None,
    feather: Number = 8,
    seed: Number = 0,
    **sampling: Any,
) -> Photograph:
    """Edits a photograph of any size around its mask, as the command's `--crop`.

    Args:
      editor: the editor.
      image: the photograph.
      mask: white = edit here.
      prompt: the prompt.
      context, components, resolution: see `Crop`.
      feather: blending width around the mask in pixels.
      seed: noise seed; area k of the mask takes `seed` + k.
      **sampling: `negative_prompt`, scales, `num_inference_steps`, `strength` of
        `Editor.__call__`.

    Returns:
      The result in the photograph's own size and colour space, with its profile.
      From `feather` + 1 pixels outside the mask on, it equals the photograph bit for bit.

    Raises:
      FileNotFoundError, ValueError: as `Editor.__call__`, `Crop` and `prepare`.
    """
    for name in ("height", "width", "latents", "output_type", "on_step"):
        if name in sampling:
            raise ValueError(f"{name} is not for edit_photograph: windows are edited on their own")
    crop = Crop(
        as_number(context, "context"),
        components,
        None if resolution is None else as_integer(resolution, "resolution"),
    )
    plan = EditPlan(crop, as_integer(feather, "feather"), sampling)
    one = PhotographEdit(
        read_photograph(only(as_pictures(image, "image"), "image")),
        read_mask(only(as_pictures(mask, "mask"), "mask")),
        only(as_texts(prompt, "prompt"), "prompt"),
        as_integer(seed, "seed"),
    )
    (result,) = edit_batch(editor, [prepare(one, plan, editor)], plan)
    return dataclasses.replace(one.photograph, pixels=result)


def prepare(one: PhotographEdit, plan: EditPlan, editor: Editor) -> ReadyEdit:
    """Checks mask against photograph, finds the windows, and logs what the user should know.

    Raises:
      ValueError: the mask is empty, has another aspect ratio than its photograph, or too many
        areas; the photograph is too small, or a seed does not fit into 64 bits.
    """
    check_seeds((one.seed,))
    for note in one.photograph.notes:
        warn_once(f"{one.name or 'the photograph'}: {note}")
    pixels = one.photograph.pixels
    check_shapes(pixels.size, one.mask.size)
    if plan.crop is None:
        height, width = (plan.sampling.get(name) for name in ("height", "width"))
        mask_pixels(one.mask, editing_size(pixels.size, height, width, editor.multiple))
        return ReadyEdit(one, ())
    edited = white(one.mask, pixels.size)
    if not edited.any():
        raise ValueError("the mask is empty: it has no white pixels, which mark where to edit")
    if warning := mask_warning(one.mask):
        warn_once(f"{one.name or 'the photograph'}: {warning}")
    resolution, areas = plan.crop.resolution or editor.defaults.resolution, [whole_area(edited)]
    if plan.crop.components == "each":
        areas = separate_areas(edited, max(round(resolution * NEAR), 2 * (plan.feather + 1)))
    windows = [
        (area, crop_window(
            area.box,
            edited.shape,
            resolution=resolution,
            aspect_ratios=editor.defaults.aspect_ratios,
            context=plan.crop.context,
            margin=plan.feather + 1,
        ))
        for area in areas
    ]  # fmt: skip
    check_seeds((one.seed + len(windows) - 1,))
    return ReadyEdit(one, windows)


def edit_batch(
    editor: Editor,
    ready: Sequence[ReadyEdit],
    plan: EditPlan,
    on_step: Callable[[int], Any] | None = None,
) -> list[Image.Image]:
    """Edits photographs together; without a crop they have one size.

    Args:
      editor: the editor.
      ready: from `prepare`.
      plan: how to edit.
      on_step: called when a step is computed, with the number of photographs in it.

    Returns:
      The results, each in the colour space of its photograph.
    """

    def told(count: int, _: int, latents: Any) -> None:
        jax.block_until_ready(latents)  # steps are dispatched much earlier
        on_step(count)

    def edited(
        images: list[Image.Image],
        masks: list[Image.Image],
        members: Sequence[int],
        number: int,
        **size: int,
    ) -> list[Image.Image]:
        return editor(
            image=images,
            mask=masks,
            prompt=[ready[index].edit.prompt for index in members],
            seed=[ready[index].edit.seed + number for index in members],
            on_step=None if on_step is None else functools.partial(told, len(members)),
            **{**plan.sampling, **size},
        )

    if plan.crop is None:
        edits = [one.edit for one in ready]
        pictures = edited(
            [one.photograph.srgb() for one in edits],
            [one.mask for one in edits],
            range(len(edits)),
            0,
        )
        own = [one.photograph.from_srgb(picture) for one, picture in zip(edits, pictures)]
        if plan.feather is None:
            return own
        return [
            paste_back(one.photograph.pixels, picture, one.mask, plan.feather)
            for one, picture in zip(edits, own)
        ]
    results = [one.edit.photograph.pixels.copy() for one in ready]
    for number in range(max(one.rounds for one in ready)):
        by_size: dict[Size, list[int]] = {}
        for index, one in enumerate(ready):
            if number < one.rounds:
                by_size.setdefault(one.windows[number][1].size, []).append(index)
        for (height, width), members in by_size.items():
            parts = [
                _Part.of(ready[index].edit, results[index], *ready[index].windows[number])
                for index in members
            ]
            pictures = edited(
                [part.image for part in parts],
                [part.mask for part in parts],
                members,
                number,
                height=height,
                width=width,
            )
            for index, part, picture in zip(members, parts, pictures, strict=True):
                part.paste(picture, results[index], plan.feather)
    return results


@dataclasses.dataclass(frozen=True)
class _Part:
    """A window ready to be edited.

    Attributes:
      photograph: the window, in full size.
      where: its masked pixels.
      image, mask: what the editor gets, in the size of the edit.
      window: the place.
    """

    photograph: Photograph
    where: Bool[np.ndarray, "h w"]
    image: Image.Image
    mask: Image.Image
    window: CropWindow

    @classmethod
    def of(
        cls, edit: PhotographEdit, current: Image.Image, area: MaskArea, window: CropWindow
    ) -> _Part:
        """From an edit and its photograph as edited so far."""
        photograph = dataclasses.replace(edit.photograph, pixels=current.crop(window.box))
        where = area.within(*window.box)
        image = _resized(photograph.srgb(), window)
        return cls(photograph, where, image, window_mask(where, window.size), window)

    def paste(self, picture: Image.Image, result: Image.Image, feather: int) -> None:
        """Stitches an edited window into `result`."""
        own, source = self.photograph.from_srgb(picture), self.photograph.pixels
        offset = colour_offset(_resized(source, self.window), own, np.asarray(self.mask) > 0)
        result.paste(stitched(source, own, self.where, feather, offset), self.window.box[:2])


def _resized(picture: Image.Image, window: CropWindow) -> Image.Image:
    size = window.size[::-1]
    return picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS)
