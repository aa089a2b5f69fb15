"""`editing.json` of an editor's folder: how this editor is best used, where it is not as FLUX.

{"num_inference_steps": 8, "true_cfg_scale": 2.0, "paste_back": true, "resolution": 64,
"aspect_ratios": [1.0]}
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from onereward_jax.common.listing import shown
from onereward_jax.convert import EDITING
from onereward_jax.convert.safetensors_reader import read_json
from onereward_jax.data.aspect_buckets import MULTIPLE, bucket_sizes
from onereward_jax.inference.batch_arguments import as_number
from onereward_jax.policy.sampler import Solver


@dataclasses.dataclass(frozen=True)
class EditDefaults:
    """What is taken where nothing is said; without a file, as OneReward was released.

    Attributes:
      num_inference_steps, true_cfg_scale, guidance_scale: as of `Editor.__call__`.
      solver: "euler" or "ab2", see `policy.sampler`.
      paste_back: whether the command `edit` keeps everything outside the mask.
      resolution: side in pixels of a square with the area of the model's training pictures, used
        by `--crop`; a multiple of 16.
      aspect_ratios: width over height of the windows of `--crop`: few, because every size compiles
        anew.

    Raises:
      ValueError: a number is out of range.
    """

    num_inference_steps: int = 50
    true_cfg_scale: float = 4.0
    guidance_scale: float = 1.0
    solver: str = "euler"
    paste_back: bool = False
    resolution: int = 1024
    aspect_ratios: tuple[float, ...] = (1 / 2, 2 / 3, 1.0, 3 / 2, 2.0)

    def __post_init__(self) -> None:
        if not 1 <= self.num_inference_steps < 2**31:
            steps = shown(self.num_inference_steps)
            raise ValueError(f"num_inference_steps is {steps}, 1 to {2**31 - 1} expected")
        check_solver(self.solver)
        check_resolution(self.resolution)
        bucket_sizes(self.resolution, self.aspect_ratios)


def read_edit_defaults(folder: Path) -> EditDefaults:
    """What `folder` states.

    Raises:
      ValueError: the file is no JSON, or it has an unknown field, or one of another type or
        out of range.
    """
    path = folder / EDITING
    return stated_defaults(read_json(path), str(path)) if path.is_file() else EditDefaults()


def stated_defaults(content: Mapping[str, Any], path: str) -> EditDefaults:
    """What the content of `EDITING` states; raises as `read_edit_defaults`, naming `path`."""
    stated, fields = dict(content), {f.name: f for f in dataclasses.fields(EditDefaults)}
    for name, value in stated.items():
        if name not in fields:
            raise ValueError(f"{path}: unknown field {name!r}; there are {', '.join(fields)}")
        kind = type(fields[name].default)
        if kind is tuple and isinstance(value, list):
            continue
        if type(value) is not kind and not (kind is float and type(value) is int):
            expected = "list" if kind is tuple else kind.__name__
            raise ValueError(f"{path}: {name} is {shown(value)}, {expected} expected")
    try:
        for name, value in content.items():
            if type(fields[name].default) is float:
                stated[name] = as_number(value, name)
            elif isinstance(value, list):
                stated[name] = tuple(as_number(one, name) for one in value)
        return EditDefaults(**stated)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def check_solver(solver: str) -> None:
    """Raises ValueError unless `solver` is known."""
    if solver not in get_args(Solver):
        raise ValueError(f"solver is {shown(solver)}: choose one of {', '.join(get_args(Solver))}")


def check_resolution(resolution: int) -> None:
    """Raises ValueError unless `resolution` is a multiple of 16 pixels."""
    if resolution < MULTIPLE or resolution % MULTIPLE:
        raise ValueError(f"resolution is {resolution}, a multiple of {MULTIPLE} expected")
