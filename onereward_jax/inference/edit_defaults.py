"""`editing.json` of an editor's folder: how this editor is best used, where it is not as FLUX.

{"num_inference_steps": 8, "true_cfg_scale": 2.0, "paste_back": true}
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from onereward_jax.convert import EDITING
from onereward_jax.convert.safetensors_reader import read_json


@dataclasses.dataclass(frozen=True)
class EditDefaults:
    """What is taken where nothing is said; without a file, as OneReward was released.

    Attributes:
      num_inference_steps, true_cfg_scale, guidance_scale: as of `Editor.__call__`.
      paste_back: whether the command `edit` keeps everything outside the mask.
    """

    num_inference_steps: int = 50
    true_cfg_scale: float = 4.0
    guidance_scale: float = 1.0
    paste_back: bool = False


def read_edit_defaults(folder: Path) -> EditDefaults:
    """What `folder` states.

    Raises:
      ValueError: the file is no JSON, or it has an unknown field or one of another type.
    """
    path = folder / EDITING
    if not path.is_file():
        return EditDefaults()
    stated, fields = read_json(path), {f.name: f for f in dataclasses.fields(EditDefaults)}
    for name, value in stated.items():
        if name not in fields:
            raise ValueError(f"{path}: unknown field {name!r}; there are {', '.join(fields)}")
        kind = type(fields[name].default)
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise ValueError(f"{path}: {name} is {value!r}, {kind.__name__} expected")
    return EditDefaults(**stated)
