"""What is to be edited: one picture, or the rows of a folder's `metadata.jsonl`.

    {"image": "a.jpg", "mask": "a_mask.png", "prompt": "a red apple", "task": "fill"}
    {"image": "b.jpg", "pad": "64,0,64,0", "task": "extend"}

Paths are relative to the folder. `task` is fill (also when left out), extend, remove, or a value
of `tasks.Task`; `prompt` may be left out where the task fixes it. Fields that only training knows
(`target`, `split`) are passed over, and so are those that are null.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from PIL import Image

from onereward_jax.data.metadata import METADATA, check_inside, metadata_lines
from onereward_jax.inference.canvas import Padding, extended
from onereward_jax.inference.picture_io import check_shapes, editing_size, mask_pixels, open_picture
from onereward_jax.policy.text_encoders import check_prompt
from onereward_jax.tasks import FIXED_PROMPTS, Task, task_named

FIELDS = ("image", "mask", "prompt", "task", "pad")
IGNORED_FIELDS = ("target", "split")


@dataclasses.dataclass(frozen=True)
class Request:
    """One picture to be edited.

    Attributes:
      image, mask: opened; the canvas and its mask where the picture is extended.
      prompt: what to draw; the fixed one for tasks that have one and none was given.
      name: of the picture's file, without its suffix.
    """

    image: Image.Image
    mask: Image.Image
    prompt: str
    name: str


def read_request(
    image: Path, mask: Path | None, prompt: str, task: str, pad: str | None
) -> Request:
    """Opens and checks the files of one edit.

    Args:
      image: the source picture.
      mask: white = edit here; None where `pad` makes one.
      prompt: "" for none.
      task: see `tasks.task_named`.
      pad: "left,top,right,bottom" pixels to extend by, or None.

    Raises:
      FileNotFoundError: a file does not exist.
      ValueError: a file cannot be read as a picture, the prompt is no text, the task is unknown,
        or mask, pad and prompt do not fit the task.
    """
    check_prompt(prompt)
    kind = task_named(task, prompt)
    words = prompt or FIXED_PROMPTS.get(kind)
    if words is None:
        raise ValueError(f"the task {task} needs a prompt: what shall be drawn under the mask?")
    if pad is not None and kind not in (Task.EXTEND_WITH_PROMPT, Task.EXTEND_WITHOUT_PROMPT):
        raise ValueError(f"pad is for the task extend, not for {task}")
    if pad is not None and mask is not None:
        raise ValueError("pad makes a mask of its own: leave one of pad and mask out")
    if pad is None and mask is None:
        raise ValueError(f"the task {task} needs a mask" + (" or pad" if "extend" in kind else ""))
    picture = open_picture(image)
    if pad is not None:
        picture, covered = extended(picture, Padding.parse(pad))
    else:
        covered = open_picture(mask)
        check_shapes(picture, covered)
        # found now, not after minutes of loading a model
        mask_pixels(covered, editing_size(picture, None, None, 1))
    return Request(picture, covered, words, image.stem)


def read_folder(folder: Path) -> list[Request]:
    """The requests of a folder's metadata, in the order of the lines.

    Raises:
      FileNotFoundError: there is no metadata, or a file it names does not exist.
      ValueError: a line is not UTF-8 or not a request, or as `read_request`; the message names
        the line.
    """
    path = folder / METADATA
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is a folder without {METADATA}")
    requests = []
    for number, line in enumerate(metadata_lines(path), 1):
        if not line.strip():
            continue
        try:
            fields = _fields(line)
            requests.append(
                read_request(
                    folder / fields["image"],
                    folder / fields["mask"] if "mask" in fields else None,
                    fields.get("prompt", ""),
                    fields.get("task", Task.FILL),
                    fields.get("pad"),
                )
            )
        except (ValueError, FileNotFoundError) as error:
            raise type(error)(f"{path}, line {number}: {error}") from error
    if not requests:
        raise ValueError(f"{path} has no rows")
    return requests


def _fields(line: str) -> dict[str, Any]:
    """A line's fields, all of them texts."""
    try:
        fields = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from error
    if not isinstance(fields, dict) or fields.get("image") is None:
        raise ValueError('a JSON object with the field "image" expected')
    fields = {name: value for name, value in fields.items() if value is not None}
    for name, value in fields.items():
        if name not in FIELDS + IGNORED_FIELDS:
            raise ValueError(f"unknown field {name!r}; there are {', '.join(FIELDS)}")
        if not isinstance(value, str):
            raise ValueError(f"{name} must be a text, found {value!r}")
        if name in ("image", "mask"):
            check_inside(name, value)
    return fields
