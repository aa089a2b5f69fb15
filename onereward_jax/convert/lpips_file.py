"""The weights of LPIPS: a safetensors file with the tensors of the package lpips or torchvision.

lpips, `LPIPS(net="squeeze").state_dict()`   net.slice1.0.weight, lin0.model.1.weight
torchvision, beside the linear weights      features.0.weight, lin0.weight
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from onereward_jax.common.listing import listed
from onereward_jax.convert.safetensors_reader import DTYPES, read_header
from onereward_jax.models.lpips import BACKBONES, expected_shapes

_FEATURES = re.compile(r"(?:net\.)*(?:slice\d+|features)\.(.+)")
_LINEAR = re.compile(r"(?:net\.)*lin(\d+)(?:\.model\.1)?\.weight")
_UNUSED = re.compile(r"(?:net\.)*(?:lins|scaling_layer|classifier)\..+")


def read_lpips(source: Path) -> dict[str, Float32[np.ndarray, "..."]]:
    """The parameters of `models.lpips.lpips`, from a file or the only one of a folder.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is not safetensors, or not LPIPS with one of `BACKBONES`: the differences to
        the most similar one are listed.
    """
    path, found = lpips_file(source), {}
    for name, tensor in read_header(path)[0].items():
        if match := _LINEAR.fullmatch(name):
            key, shape = f"lin{match[1]}", (-1,)
        elif match := _FEATURES.fullmatch(name):
            key, shape = f"features.{match[1]}", tensor.shape
        elif _UNUSED.fullmatch(name):
            continue
        else:
            raise ValueError(f"{path}: {name} is not a tensor of LPIPS")
        if tensor.kind not in DTYPES:
            raise ValueError(f"{path}: {name} has the dtype {tensor.kind}")
        found[key] = np.array(tensor[()], np.float32).reshape(shape)
        if not np.isfinite(found[key]).all():
            raise ValueError(f"{path}: {name} has values that are not finite")
    differing = {name: _differences(found, name) for name in BACKBONES}
    backbone = min(differing, key=lambda name: len(differing[name]))
    if differing[backbone]:
        raise ValueError(
            f"{path} is not LPIPS with the backbone {backbone}:" + listed(differing[backbone])
        )
    return found


def lpips_file(source: Path) -> Path:
    """The file itself, or the only safetensors file of a folder.

    Raises:
      FileNotFoundError: there is none, or several.
    """
    if source.is_file():
        return source
    files = sorted(source.glob("*.safetensors"))
    if len(files) != 1:
        raise FileNotFoundError(f"{source} has {len(files)} .safetensors files, one expected")
    return files[0]


def _differences(found: Mapping[str, np.ndarray], backbone: str) -> list[str]:
    expected = expected_shapes(backbone)
    shapes = {name: tuple(tensor.shape) for name, tensor in found.items()}
    return [
        f"{name}: {shapes.get(name, 'missing')}, {expected.get(name, 'no such tensor')} expected"
        for name in sorted(expected.keys() | shapes.keys())
        if shapes.get(name) != expected.get(name)
    ]
