"""Edit requests: one image, or the rows of a folder's `metadata.jsonl`.

    {"image": "a.jpg", "mask": "a_mask.png", "prompt": "a red apple", "task": "fill"}
    {"image": "b.jpg", "pad": "64,0,64,0", "task": "extend"}

Paths are relative to the folder. `task` is fill (default), extend, remove, or a value of
`tasks.Task`; `prompt` is optional for tasks with a fixed prompt. Fields that only training uses
(`target`, `split`) are ignored, and so are null fields.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from PIL import Image

from onereward_jax.data.inside_folder import check_inside
from onereward_jax.data.metadata_lines import METADATA, metadata_lines
from onereward_jax.inference.canvas import Padding, extended
from onereward_jax.inference.picture_io import check_shapes
from onereward_jax.pictures import read_mask, read_picture
from onereward_jax.policy.text_encoders import check_prompt
from onereward_jax.tasks import FIXED_PROMPTS, Task, task_named

FIELDS = ("image", "mask", "prompt", "task", "pad")
IGNORED_FIELDS = ("target", "split")


@dataclasses.dataclass(frozen=True)
class Request:
    """One edit.

    Attributes:
      image, mask: the opened images; with `pad`, the extended canvas and its mask.
      prompt: the prompt; by default the task's fixed one.
      name: name of the image file, without suffix.
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
      image: the source image.
      mask: white = edit here; None with `pad`.
      prompt: "" for none.
      task: see `tasks.task_named`.
      pad: "left,top,right,bottom" pixels to extend by, or None.

    Raises:
      FileNotFoundError: a file does not exist.
      ValueError: a file is not a readable image, the prompt is not valid Unicode, the task is
        unknown, or mask, pad and prompt do not match the task.
    """
    check_prompt(prompt)
    kind = task_named(task, prompt)
    words = prompt or FIXED_PROMPTS.get(kind)
    if words is None:
        raise ValueError(f"the task {task} needs a prompt")
    if pad is not None and kind not in (Task.EXTEND_WITH_PROMPT, Task.EXTEND_WITHOUT_PROMPT):
        raise ValueError(f"pad is for the task extend, not for {task}")
    if pad is not None and mask is not None:
        raise ValueError("pad creates the mask: give either pad or mask, not both")
    if pad is None and mask is None:
        raise ValueError(f"the task {task} needs a mask" + (" or pad" if "extend" in kind else ""))
    picture = read_picture(image)
    if pad is not None:
        picture, covered = extended(picture, Padding.parse(pad))
    else:
        covered = read_mask(mask)
        check_shapes(picture.size, covered.size)
    return Request(picture, covered, words, image.stem)


def read_folder(folder: Path) -> list[Request]:
    """The requests of a folder's metadata, in line order.

    Raises:
      FileNotFoundError: there is no metadata, or a file named in it does not exist.
      ValueError: naming a line that is not UTF-8 or not a valid request.
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
    """The fields of a line, all strings."""
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
            raise ValueError(f"{name} must be a string, found {value!r}")
        if name in ("image", "mask"):
            check_inside(name, value)
    return fields
