"""From the body of a request to an edit that is ready: checked, decoded, with its windows.

The plan, the windows and the edit itself are those of the command `onereward-edit`.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import re
from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageOps

from onereward_jax.edit import edit_plan, sampled_steps
from onereward_jax.edit_server.job_queue import Job
from onereward_jax.edit_server.request_bodies import EditBody
from onereward_jax.edit_server.serve_settings import Limits
from onereward_jax.edit_server.uploads import check_canvas, check_upload
from onereward_jax.inference.canvas import Padding, extended
from onereward_jax.inference.edit_defaults import EditDefaults
from onereward_jax.inference.edit_requests import Request, read_request
from onereward_jax.inference.editor import Editor
from onereward_jax.inference.photograph_edit import EditPlan, PhotographEdit, ReadyEdit, prepare
from onereward_jax.inference.picture_io import editing_size
from onereward_jax.pictures import mask_warning, read_photograph

WHOLE = 2.0
"""A picture of at most so many times the pixels of the model's own is edited as a whole, others in
a window around the mask: so the sizes that are compiled are few, and small enough for the model."""

OF_WINDOWS = ("context", "components", "resolution")
OF_PLANS = (
    "negative_prompt", "true_cfg_scale", "guidance_scale", "steps", "strength", "paste_back",
    "feather",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class EditWork:
    """What the editor needs.

    Attributes:
      ready: the edit and its windows.
      plan: how to edit.
    """

    ready: ReadyEdit
    plan: EditPlan


@dataclasses.dataclass(frozen=True)
class KeptEdit:
    """What is remembered of an edit, for questions to the judge.

    Attributes:
      task: the name of the task, as the request has it.
      prompt: the user's prompt.
      mask: a PNG file, white where the picture was edited.
      image, pad: the source's file, and by what it was extended; see `source`.
    """

    task: str
    prompt: str
    mask: bytes
    image: bytes
    pad: str | None

    def source(self) -> Image.Image:
        """The picture before the edit, in sRGB."""
        photograph = read_photograph(self.image, "image")
        if self.pad is None:
            return photograph.srgb()
        canvas, _ = extended(photograph.pixels, Padding.parse(self.pad))
        return dataclasses.replace(photograph, pixels=canvas).srgb()

    def __len__(self) -> int:
        """Bytes of its files."""
        return len(self.mask) + len(self.image)


def edit_job(body: EditBody, options: argparse.Namespace, editor: Editor, limits: Limits) -> Job:
    """The job of a request.

    Args:
      body: the request.
      options: of the server: `edit.sampling_options` and `edit.window_options`.
      editor: the editor.
      limits: what requests may ask for.

    Raises:
      ValueError: a field is wrong, in a sentence that names it.
    """
    size = check_upload(body.image, "image", limits.megapixels)
    if body.mask is not None:
        check_upload(body.mask, "mask", limits.megapixels)
    if body.pad is not None and body.mask is None:
        check_canvas(size, body.pad, limits.megapixels)
    request = read_request(
        body.image, body.mask, body.prompt, body.task, body.pad, name="image", mask_name="mask"
    )
    plan = _plan(body, options, request.photograph.pixels.size, editor.defaults)
    mask = ImageOps.invert(request.mask) if body.invert_mask and not body.pad else request.mask
    edit = PhotographEdit(request.photograph, mask, request.prompt, body.seed, "image")
    ready = prepare(edit, plan, editor)
    steps = sampled_steps(plan)
    if ready.rounds * steps > limits.steps:
        areas = f" for each of {ready.rounds} areas" if ready.rounds > 1 else ""
        raise ValueError(f"steps: {steps}{areas}, at most {limits.steps} in all are made here")
    return Job(
        kind="edit",
        key=("edit", plan, sizes_of(ready, editor)),
        work=EditWork(ready, plan),
        steps=ready.rounds * steps,
        notes=_notes(request, mask),
        kept=KeptEdit(body.task, body.prompt, png(mask), body.image, body.pad),
    )


def sizes_of(ready: ReadyEdit, editor: Editor) -> Sequence[tuple[int, int]]:
    """Height and width of every call of the editor: edits with the same ones share programs."""
    if ready.windows:
        return tuple(window.size for _, window in ready.windows)
    return (editing_size(ready.edit.photograph.pixels.size, None, None, editor.multiple),)


def whole_pixels(defaults: EditDefaults) -> int:
    """Pixels of the largest picture that is edited as a whole."""
    return int(WHOLE * defaults.resolution**2)


def png(picture: Image.Image, profile: bytes | None = None) -> bytes:
    """A picture as a PNG file."""
    content = io.BytesIO()
    # Most of the time of the usual level 6 saves a few percent.
    picture.save(content, "PNG", compress_level=2, icc_profile=profile)
    return content.getvalue()


def _plan(
    body: EditBody, options: argparse.Namespace, size: tuple[int, int], defaults: EditDefaults
) -> EditPlan:
    """How to edit a picture of this width and height."""
    largest = whole_pixels(defaults)
    large = size[0] * size[1] > largest
    crop = large if body.crop is None else body.crop
    if large and not crop:
        raise ValueError(
            f"crop: the picture of {size[0]}x{size[1]} pixels is too large to be edited as a "
            f"whole, which takes {largest} pixels at most here"
        )
    asked = {name: getattr(body, name) for name in OF_PLANS}
    said: dict[str, Any] = {
        **vars(options),
        **{name: value for name, value in asked.items() if value is not None},
        "seed": body.seed, "crop": crop, "height": None, "width": None,
    }  # fmt: skip
    for name in OF_WINDOWS:
        own = getattr(body, name, None)
        said[name] = own if own is not None or not crop else getattr(options, name)
    if crop and body.paste_back is None:
        said["paste_back"] = None
    try:
        return edit_plan(argparse.Namespace(**said), defaults)
    except ValueError as error:
        raise ValueError(re.sub(r"--(?:no-)?(?=\w)", "", str(error))) from error


def _notes(request: Request, mask: Image.Image) -> tuple[str, ...]:
    warning = mask_warning(mask)
    return (*request.photograph.notes, *([warning] if warning else ()))
