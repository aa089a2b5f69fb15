"""From the body of a request to a question to the judge, at the size of the editor's pictures.

The judge learns from pictures of the training size, which are cropped around their masks. So large
pictures are cropped and resized here as the editor's windows are.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool
from PIL import Image

from onereward_jax.edit_server.edit_work import KeptEdit, whole_pixels
from onereward_jax.edit_server.job_queue import DONE, Job
from onereward_jax.edit_server.request_bodies import JudgementBody, decoded
from onereward_jax.edit_server.serve_settings import Limits
from onereward_jax.edit_server.uploads import check_upload
from onereward_jax.inference.crop_window import crop_window, free_size, window_mask
from onereward_jax.inference.edit_defaults import EditDefaults
from onereward_jax.inference.mask_components import whole_area
from onereward_jax.inference.picture_io import check_shapes
from onereward_jax.inference.stitch import white
from onereward_jax.pictures import read_mask, read_picture
from onereward_jax.reward.judge_view import JudgeView
from onereward_jax.tasks import DIMENSIONS, Dimension, Task, task_named

NUMBER = 32
"""Characters of a job's number; a picture has more."""

CONTEXT = 2.0


@dataclasses.dataclass(frozen=True)
class Question:
    """What the judge needs.

    Attributes:
      a, b: the pictures in sRGB, of one size.
      mask: mode L of that size, white where they were edited; None if it is not known.
      source: the picture before the edit, of that size; None if the judge does not look at it.
      task: the task.
      dimensions: what to ask about.
      prompt: the user's prompt.
    """

    a: Image.Image
    b: Image.Image
    mask: Image.Image | None
    source: Image.Image | None
    task: Task
    dimensions: tuple[Dimension, ...]
    prompt: str


def judge_job(
    body: JudgementBody,
    find: Callable[[str], Job | None],
    defaults: EditDefaults,
    limits: Limits,
    view: JudgeView,
) -> Job:
    """The job of a request.

    Args:
      body: the request.
      find: the job with a number.
      defaults: of the editor.
      limits: what requests may ask for.
      view: what the judge sees.

    Raises:
      ValueError: a field is wrong, in a sentence that names it.
    """
    sources = {name: _source(getattr(body, name), name, find) for name in ("a", "b")}
    edits = [job.kept for job in sources.values() if isinstance(job, Job)]
    pictures = []
    for name, source in sources.items():
        content = source.result if isinstance(source, Job) else source
        check_upload(content, name, limits.megapixels)
        pictures.append(read_picture(content, name))
    a, b = pictures
    if a.size != b.size:
        sizes = " and ".join("{}x{}".format(*one.size) for one in pictures)
        raise ValueError(f"b: pictures to compare must have the same size, these have {sizes}")
    said = body.task or (edits[0].task if edits else None)
    if said is None:
        raise ValueError("task: needed, unless a or b is the number of an edit")
    prompt = body.prompt if body.prompt is not None else (edits[0].prompt if edits else "")
    task = task_named(said, prompt)
    dimensions = tuple(
        one for one in DIMENSIONS[task] if prompt or one is not Dimension.TEXT_ALIGNMENT
    )
    if not dimensions:
        raise ValueError(f"prompt: the task {said} is only judged by its prompt")
    edited = _edited(body, edits, a.size, limits)
    if view.needs_mask and edited is None:
        raise ValueError(f"mask: needed, this judge sees {view.sees}")
    before = [_before(body, edits, a.size, limits, view)] if view.source else []
    (a, b, *before), mask = _at_size([*pictures, *before], edited, defaults)
    source = before[0] if before else None
    return Job(
        kind="judgement",
        key=object(),  # shared with no other
        work=Question(a, b, mask, source, task, dimensions, prompt),
        steps=len(dimensions),
    )


def _source(value: str, field: str, find: Callable[[str], Job | None]) -> Job | bytes:
    if len(value) != NUMBER:
        try:
            return decoded(value)
        except ValueError as error:
            raise ValueError(f"{field}: the number of an edit, or {error}") from error
    job = find(value)
    if job is None or job.kind != "edit" or job.state != DONE:
        raise ValueError(f"{field}: there is no finished edit {value}; the oldest are forgotten")
    return job


def _edited(
    body: JudgementBody, edits: Sequence[KeptEdit], size: tuple[int, int], limits: Limits
) -> Bool[np.ndarray, "h w"] | None:
    """Where one of the pictures was edited; None if nothing says so."""
    if body.mask is not None:
        check_upload(body.mask, "mask", limits.megapixels)
        masks = [read_mask(body.mask, "mask")]
        check_shapes(size, masks[0].size)
    else:
        masks = [Image.open(io.BytesIO(edit.mask)) for edit in edits]
    edited = np.zeros(size[::-1], bool)
    for mask in masks:
        # Without paste_back a result is a few pixels smaller than its source.
        edited |= white(mask, size)
    return edited if edited.any() else None


def _before(
    body: JudgementBody,
    edits: Sequence[KeptEdit],
    size: tuple[int, int],
    limits: Limits,
    view: JudgeView,
) -> Image.Image:
    """The picture before the edit, in the width and height of the results."""
    if body.source is not None:
        check_shapes(size, check_upload(body.source, "source", limits.megapixels))
        source = read_picture(body.source, "source")
    elif edits:
        source = edits[0].source()
    else:
        raise ValueError(f"source: needed, this judge sees {view.sees}")
    # Without paste_back a result is a few pixels smaller than its source.
    return source if source.size == size else source.resize(size, Image.Resampling.LANCZOS)


def _at_size(
    pictures: Sequence[Image.Image], edited: Bool[np.ndarray, "h w"] | None, defaults: EditDefaults
) -> tuple[list[Image.Image], Image.Image | None]:
    """Pictures and mask at a size like the model's own."""
    width, height = pictures[0].size
    if width * height <= whole_pixels(defaults):
        return list(pictures), None if edited is None else Image.fromarray(edited).convert("L")
    if edited is None:
        box, size = (0, 0, width, height), free_size((height, width), defaults.resolution)
        mask = None
    else:
        window = crop_window(
            whole_area(edited).box,
            (height, width),
            resolution=defaults.resolution,
            aspect_ratios=defaults.aspect_ratios,
            context=CONTEXT,
            margin=0,
        )
        box, size = window.box, window.size
        mask = window_mask(edited[box[1] : box[3], box[0] : box[2]], size)
    scaled = [one.resize(size[::-1], Image.Resampling.LANCZOS, box=box) for one in pictures]
    return scaled, mask
