"""Triplets on disk: a TFDS data set in ArrayRecord files, written and read without TensorFlow."""

from __future__ import annotations

import io
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, SupportsIndex, runtime_checkable

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int32
from PIL import Image

from onereward_jax.data.buckets import Size
from onereward_jax.data.example import SPLITS, Example, Split
from onereward_jax.tasks import TASKS, Task

_PICTURES = {"image": 3, "mask": 1, "target": 3, "background": 3}
_TEXTS = ("id", "prompt", "task", "kind", "label", "photo")
_REST = ("box", "has_target")


@runtime_checkable
class TripletSource(Protocol):
    """Where triplets come from: `MiniWorldSource` or `FolderSource`."""

    @property
    def sizes(self) -> Sequence[Size]:
        """The sizes that pictures come in."""

    def examples(self, split: Split) -> Iterator[Example]:
        """The examples of a split, the same ones in the same order at every call."""


class TripletsBuilder(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of the splits train and test, from any source."""

    name = "triplets"
    VERSION = tfds.core.Version("2.0.0")

    def __init__(self, *, source: TripletSource, **kwargs: Any) -> None:
        self._source = source
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        sizes = self._source.sizes
        size = sizes[0] if len(sizes) == 1 else (None, None)
        pictures = {
            name: tfds.features.Image(shape=(*size, channels), encoding_format="png")
            for name, channels in _PICTURES.items()
        }
        texts = {name: tfds.features.Text() for name in _TEXTS}
        rest = {
            "box": tfds.features.Tensor(shape=(4,), dtype=np.int32),
            "has_target": tfds.features.Scalar(dtype=np.bool_),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Mask-guided editing: image, mask and prompt, with the truth where known.",
            features=tfds.features.FeaturesDict(pictures | texts | rest),
            # The order of the source, so that an index means the same example everywhere.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict]]]:
        return {split: self._generate_examples(split) for split in ("train", "test")}

    def _generate_examples(self, split: Split) -> Iterator[tuple[int, dict]]:
        for index, example in enumerate(self._source.examples(split)):
            yield index, example.encoded()


def write_triplets(folder: pathlib.Path, source: TripletSource) -> pathlib.Path:
    """Writes both splits below `folder` and returns the folder of the data set.

    The same source gives the same files, byte for byte. What is there already is kept.
    """
    builder = TripletsBuilder(source=source, data_dir=str(folder))
    builder.download_and_prepare()
    return pathlib.Path(builder.data_path)


class MissingFeatures(ValueError):
    """A data set lacks features of `Example`."""


def check_data_set(
    folder: pathlib.Path, splits: Sequence[Split] = SPLITS
) -> tfds.core.ReadOnlyBuilder:
    """The data set that lies in `folder` or below it, of which no example is read.

    Raises:
      FileNotFoundError: there is no data set.
      ValueError: there are several, or one of the splits is missing.
      MissingFeatures: features are missing.
    """
    found = sorted(path.parent for path in pathlib.Path(folder).rglob("features.json"))
    if not found:
        raise FileNotFoundError(f"{folder}: no TFDS data set here or below (no features.json)")
    if len(found) > 1:
        raise ValueError(f"{folder}: several data sets: {', '.join(map(str, found))}")
    builder = tfds.builder_from_directory(str(found[0]))
    if missing := {*_PICTURES, *_TEXTS, *_REST} - set(builder.info.features):
        names = ", ".join(sorted(missing))
        raise MissingFeatures(f"{found[0]}: features are missing: {names}")
    for split in splits:
        if split not in builder.info.splits:
            raise ValueError(f"{found[0]}: no split {split!r}")
    return builder


class Triplets:
    """A split on disk as a random access sequence of examples.

    An example is a dict with the fields of `Example`: pictures uint8 [h, w, 3], mask uint8
    [h, w, 1] (0 or 255), box int32 [4], has_target bool, everything else str.

    Attributes:
      tasks: index into `tasks.TASKS` of every example.
      sizes: height and width of every example's pictures.
      has_target: whether target and background mean something, of every example.
    """

    def __init__(self, folder: pathlib.Path, split: Split) -> None:
        """Opens a split of a data set that lies in `folder` or below it.

        Raises:
          FileNotFoundError, ValueError: as `check_data_set`.
        """
        builder = check_data_set(folder, (split,))
        self.name = f"{builder.data_path}:{split}"
        self._records = builder.as_data_source(split)
        undecoded = dict.fromkeys(_PICTURES, tfds.decode.SkipDecoding())
        self._undecoded = builder.as_data_source(split, decoders=undecoded)
        heads = [_head(self._undecoded[index]) for index in range(len(self._undecoded))]
        tasks, sizes, has_target = zip(*heads) if heads else ((), (), ())
        self.tasks, self.has_target = np.array(tasks, np.int32), np.array(has_target, np.bool_)
        self.sizes = np.array(sizes, np.int32).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self.tasks)

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        record = self._records[int(index)]
        return record | {name: record[name].decode() for name in _TEXTS}

    def __repr__(self) -> str:
        return f"Triplets({self.name})"

    def column(self, name: str) -> list[str]:
        """A text field of all examples, read without decoding a picture."""
        return [self._undecoded[index][name].decode() for index in range(len(self._undecoded))]

    def with_task(self, task: Task) -> Int32[np.ndarray, "n"]:
        """The indices of all examples of a task."""
        return np.flatnonzero(self.tasks == TASKS.index(task)).astype(np.int32)


def _head(record: dict[str, Any]) -> tuple[int, Size, bool]:
    """Task, size and has_target of an undecoded record; the size from the head of its picture."""
    with Image.open(io.BytesIO(record["image"])) as picture:
        size = picture.size[::-1]
    return TASKS.index(Task(record["task"].decode())), size, record["has_target"]
