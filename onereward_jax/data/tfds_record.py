"""A triplet as a record of a TFDS data set, written and read without TensorFlow.

Each image is stored once: `target` is omitted if unknown, `background` if equal to the target.
Photographs are stored as JPEG (`jpeg`), everything else as PNG.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from onereward_jax.data.aspect_buckets import Size
from onereward_jax.data.example import Example
from onereward_jax.data.jpeg import is_jpeg

TEXTS = ("id", "prompt", "task", "kind", "label", "photo")
REST = ("box", "has_target")
PICTURES = ("image", "mask", "target", "background")
FIELDS = (*PICTURES, *TEXTS, *REST)

# Higher levels make photographs hardly smaller and take three times as long.
_PNG_LEVEL = 3


def features(sizes: Sequence[Size]) -> tfds.features.FeaturesDict:
    """The TFDS features of a data set with these image sizes."""
    size = sizes[0] if len(sizes) == 1 else (None, None)
    picture = tfds.features.Image(shape=(*size, 3))
    texts = {name: tfds.features.Text() for name in TEXTS}
    return tfds.features.FeaturesDict(
        {
            "image": picture,
            "mask": tfds.features.Image(shape=(*size, 1), encoding_format="png"),
            # zero or one image
            "target": tfds.features.Sequence(picture),
            "background": tfds.features.Sequence(picture),
            "box": tfds.features.Tensor(shape=(4,), dtype=np.int32),
            "has_target": tfds.features.Scalar(dtype=np.bool_),
        }
        | texts
    )


def encode(example: Example) -> dict[str, Any]:
    """The input of TFDS serialization: images as bytes (arrays would require TensorFlow)."""
    known = example.has_target
    has_background = known and not np.array_equal(example.background, example.target)
    return {
        "image": _file(example, "image"),
        "mask": _file(example, "mask"),
        "target": [_file(example, "target")] if known else [],
        "background": [_file(example, "background")] if has_background else [],
        "box": np.array(example.box, np.int32),
        "has_target": known,
        "task": example.task.value,
    } | {name: getattr(example, name) for name in TEXTS if name != "task"}


def serialize(stored: tfds.features.FeaturesDict, example: Example) -> bytes:
    """The record of an example; deterministic."""
    record = stored.serialize_example(encode(example))
    # Without this the order of the features depends on protobuf's hash table.
    return tf_example_pb2.Example.FromString(record).SerializeToString(deterministic=True)


class RecordReader:
    """Parses records, also of data sets that store target and background in every record.

    Only requested images are decoded.
    """

    def __init__(self, stored: tfds.features.FeaturesDict) -> None:
        """
        Args:
          stored: the features of the data set.
        """
        self._features = tfds.features.FeaturesDict(
            {name: _undecoded(name, stored[name]) for name in FIELDS}
        )

    def read(self, record: bytes, fields: Sequence[str] = FIELDS) -> dict[str, Any]:
        """The fields of a record, see `Triplets`."""
        found = self.files(record)

        @functools.cache
        def picture(name: str) -> UInt8[np.ndarray, "h w c"]:
            if name in ("image", "mask"):
                return _decode(found[name])
            if not found["has_target"]:
                return np.zeros((*picture_size(found["image"]), 3), np.uint8)
            if name == "background":
                return _decode(found[name]) if found[name] else picture("target")
            target = _decode(found[name])
            if is_jpeg(found[name]) or is_jpeg(found["image"]):
                # Remove compression artifacts outside the mask, where the target is the image.
                target = np.where(picture("mask") >= 128, target, picture("image"))
            return target

        return {name: picture(name) if name in PICTURES else found[name] for name in fields}

    def files(self, record: bytes) -> dict[str, Any]:
        """All fields, images as encoded bytes; b"" for omitted images."""
        found = self._features.deserialize_example_np(record)
        for name in ("target", "background"):
            if not isinstance(found[name], bytes):
                found[name] = found[name][0] if len(found[name]) else b""
        return found | {name: found[name].decode() for name in TEXTS}


def picture_size(file: bytes) -> Size:
    """Height and width, from the header of an image file."""
    with Image.open(io.BytesIO(file)) as picture:
        return picture.size[::-1]


def _undecoded(name: str, stored: tfds.features.FeatureConnector) -> tfds.features.FeatureConnector:
    """The feature that reads an image as encoded bytes."""
    if name not in PICTURES:
        return stored
    text = tfds.features.Text()
    return tfds.features.Sequence(text) if isinstance(stored, tfds.features.Sequence) else text


def _file(example: Example, name: str) -> bytes:
    if name in example.files:
        return example.files[name]
    buffer = io.BytesIO()
    Image.fromarray(getattr(example, name)).save(buffer, "PNG", compress_level=_PNG_LEVEL)
    return buffer.getvalue()


def _decode(file: bytes) -> UInt8[np.ndarray, "h w c"]:
    with Image.open(io.BytesIO(file)) as picture:
        pixels = np.asarray(picture)
    return pixels if pixels.ndim == 3 else pixels[..., None]
