"""Pictures to the input of CLIP's vision tower, equal to transformers' `CLIPImageProcessor`.

The shorter side is resized by PIL's antialiased bicubic filter, the centre is cropped, and the
pixels are normalised.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from PIL import Image

from onereward_jax.common.dataclass_fields import check_fields
from onereward_jax.convert import CLIP_MEAN, CLIP_STD
from onereward_jax.convert.safetensors_reader import read_json

_FIXED: dict[str, tuple[Any, ...]] = {
    "do_resize": (True,),
    "do_center_crop": (True,),
    "do_rescale": (True,),
    "do_normalize": (True,),
    "resample": (Image.Resampling.BICUBIC,),
    "rescale_factor": (1 / 255,),
}


@dataclasses.dataclass(frozen=True)
class ClipPreprocess:
    """Resize, crop, normalise. Defaults are those of `CLIPImageProcessor`.

    Attributes:
      shortest_edge: length of the shorter side after resizing, in pixels.
      crop: side of the square cropped from the centre, in pixels.
      image_mean, image_std: per channel, for values in [0, 1].

    Raises:
      ValueError: the square is larger than the resized picture.
    """

    shortest_edge: int = 224
    crop: int = 224
    image_mean: tuple[float, ...] = CLIP_MEAN
    image_std: tuple[float, ...] = CLIP_STD

    def __post_init__(self) -> None:
        if self.crop > self.shortest_edge:
            raise ValueError(
                f"preprocessor_config: crop_size {self.crop} is larger than size.shortest_edge "
                f"{self.shortest_edge}"
            )

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> ClipPreprocess:
        """From the parsed `preprocessor_config.json`; sizes may be integers, as in old files.

        Raises:
          ValueError: a setting that is not implemented.
        """
        for field, allowed in _FIXED.items():
            if config.get(field, allowed[0]) not in allowed:
                raise ValueError(f"preprocessor_config: {field} = {config[field]!r} not supported")
        values = {
            name: tuple(config[name]) if isinstance(config[name], list) else config[name]
            for name in ("image_mean", "image_std")
            if name in config
        }
        values["shortest_edge"] = _side(config, "size", ("shortest_edge",))
        values["crop"] = _side(config, "crop_size", ("height", "width"))
        check_fields("preprocessor_config", cls, values)
        for name in ("image_mean", "image_std"):
            if len(values.get(name, "rgb")) != 3:
                raise ValueError(f"preprocessor_config: {name} is not one number per channel")
        return cls(**values)

    def __call__(self, picture: Image.Image) -> Float32[np.ndarray, "s s 3"]:
        """The pixels of an upright picture of any mode and size; s is `crop`."""
        rgb = picture if picture.mode == "RGB" else picture.convert("RGB")
        shorter, longer = sorted(rgb.size)
        length = int(self.shortest_edge * longer / shorter)
        size = (
            (self.shortest_edge, length)
            if rgb.width <= rgb.height
            else (
                length,
                self.shortest_edge,
            )
        )
        resized = rgb.resize(size, Image.Resampling.BICUBIC)
        left, top = ((side - self.crop) // 2 for side in resized.size)
        square = resized.crop((left, top, left + self.crop, top + self.crop))
        pixels = np.asarray(square, np.float32) / np.float32(255)
        mean, std = (np.asarray(part, np.float32) for part in (self.image_mean, self.image_std))
        return (pixels - mean) / std


def read_preprocess(folder: Path) -> ClipPreprocess:
    """The preprocessing of a CLIP folder.

    Raises:
      FileNotFoundError: there is no preprocessor_config.json.
      ValueError: it is not a JSON object, or has a setting that is not implemented.
    """
    path = folder / "preprocessor_config.json"
    if not path.is_file() and (folder / "processor_config.json").is_file():  # transformers 5
        path = folder / "processor_config.json"
        found = read_json(path).get("image_processor")
    else:
        found = read_json(path)
    if not isinstance(found, dict):
        raise ValueError(f"{path} has no image preprocessing")
    try:
        return ClipPreprocess.from_dict(found)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _side(config: Mapping[str, Any], name: str, keys: tuple[str, ...]) -> Any:
    """A length that is stated as a number or, of equal values, by each of `keys`."""
    found = config.get(name, 224)
    if not isinstance(found, Mapping):
        return found
    if set(found) != set(keys) or len(set(found.values())) != 1:
        raise ValueError(f"preprocessor_config: {name} = {dict(found)!r} not supported")
    return next(iter(found.values()))
