"""The judge for inference: two images, a task and a dimension in, P("Yes") out.

Single letters: b batch, h, w image height and width.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float32, PyTree

from onereward_jax.convert import resolve_folder
from onereward_jax.inference.batch_arguments import Pictures, Texts, as_pictures, as_texts
from onereward_jax.inference.batch_padding import dtype_or_default, pad_batch
from onereward_jax.inference.picture_io import check_shapes, mask_pixels, pixels_of
from onereward_jax.parallel import MeshFunction, batch_sharding, make_mesh, mesh_jit
from onereward_jax.pictures import PictureSource, read_mask, read_picture
from onereward_jax.reward import QueryTokenizer
from onereward_jax.reward.judge_loader import load_reward_params, read_reward_model
from onereward_jax.tasks import DIMENSIONS, Dimension, Task, dimension_named, task_named

ANY_SIZE = (56, 56)
"""Image size of the scorer used to load the weights, which do not depend on it."""


class Judge:
    """A judge with its weights; the pure functions are in `reward`.

    Attributes:
      view: what it was trained to see.
      params: the weights.
      mesh: mesh of the weights.
    """

    def __init__(self, folder: Path, mesh: Mesh, options: dict[str, Any]) -> None:
        """Loads the weights; `from_pretrained` checks the arguments."""
        self.mesh = mesh
        self._read = functools.partial(read_reward_model, folder, **options)
        self._for_size = functools.lru_cache(maxsize=16)(self._compile)
        scorer = self._read(ANY_SIZE).scorer
        self.view = scorer.view
        self.params: PyTree = load_reward_params(folder, scorer, mesh)

    @classmethod
    def from_pretrained(
        cls,
        path: str | os.PathLike[str],
        *,
        mesh: Mesh | None = None,
        dtype: Any = None,
        suffix_length: int = 96,
        answers_only: bool = False,
    ) -> Judge:
        """Loads a judge from a folder in the layout of transformers' Qwen2.5-VL.

        Args:
          path: the folder (see `convert.resolve_folder`), or "mini/models/judge" for the package's
            mini judge.
          mesh: mesh of weights and samples; None: all devices on the axis `fsdp`.
          dtype: dtype of weights and computation; None: float32 on CPU, bfloat16 elsewhere.
          suffix_length: tokens for a dimension's words including a quoted prompt.
          answers_only: normalize P("Yes") over {Yes, No} instead of the whole vocabulary.

        Raises:
          FileNotFoundError, ValueError: as `convert.resolve_folder`,
            `reward.judge_loader.read_reward_model` and `load_reward_params`.
        """
        dtype = dtype_or_default(dtype)
        options = {
            "dtype": dtype,
            "param_dtype": dtype,
            "suffix_length": suffix_length,
            "answers_only": answers_only,
        }
        return cls(resolve_folder(path, "model"), make_mesh() if mesh is None else mesh, options)

    def score(
        self,
        images_a: Pictures,
        images_b: Pictures,
        *,
        task: Texts,
        dimension: Texts,
        prompt: Texts = "",
        masks: Pictures | None = None,
        sources: Pictures | None = None,
    ) -> Float32[np.ndarray, "b"]:
        """P("Yes") to "is image a better than image b?", for each pair.

        The answer depends on the order; `score(b, a)` asks in the other order. Pairs of several
        sizes are judged size by size; the images of one pair have one size, as in training.

        Args:
          images_a, images_b: paths, opened images, bytes or arrays, equally many: see
            `as_pictures`.
          task: "fill", "extend", "remove", or the value of a `Task`; one for all pairs or one each.
          dimension: a dimension of the task (`tasks.DIMENSIONS`); one for all pairs or one each.
          prompt: prompt of the edit, one for all pairs or one each; only text alignment quotes it.
          masks, sources: masks of the edits, white where the picture was edited, and the pictures
            before the edit; one for all pairs or one each. Needed by a judge that was trained to
            see them (`view`), others do not look at them.

        Raises:
          FileNotFoundError: a path does not exist.
          ValueError: an image is unreadable, sizes or numbers of images differ, the task is
            unknown, the dimension does not belong to it, or the judge needs masks or sources.
        """
        first, second = as_pictures(images_a, "images_a"), as_pictures(images_b, "images_b")
        if len(first) != len(second):
            raise ValueError(f"images_a has {len(first)} images, images_b has {len(second)}")
        texts = {"tasks": task, "dimensions": dimension, "prompts": prompt}
        words = {name: as_texts(value, name[:-1]) for name, value in texts.items()}
        for name, found in words.items():
            if len(found) not in (1, len(first)):
                raise ValueError(f"{len(found)} {name} for {len(first)} pairs")
        tasks, asked, prompts = (
            found * (len(first) if len(found) == 1 else 1) for found in words.values()
        )
        tasks = [task_named(name, one) for name, one in zip(tasks, prompts)]
        asked = [_dimension(*one) for one in zip(asked, tasks, prompts)]
        edited = self._given(masks, "mask", self.view.needs_mask, len(first))
        before = self._given(sources, "source", bool(self.view.source), len(first))
        opened = [read_picture(one) for one in first]
        result = np.empty(len(first), np.float32)
        for size in dict.fromkeys(one.size for one in opened):
            rows = [row for row, one in enumerate(opened) if one.size == size]
            pixels = pixels_of([*(opened[row] for row in rows), *(second[row] for row in rows)])
            seen = {}
            if edited:
                shapes = np.stack([_mask(edited[row], size) for row in rows])
                # With one of the results, as all must have one size.
                shown = pixels_of([opened[rows[0]], *(before[row] for row in rows if before)])[1:]
                seen = self.view.inputs(shapes, shown if before else None)
            result[rows] = self._answers(
                pixels, seen, *([values[row] for row in rows] for values in (tasks, asked, prompts))
            )
        return result

    def unfit(self, prompt: str, task: Task, size: tuple[int, int]) -> str:
        """Why the judge cannot be asked about an edit; "" if it can.

        Args:
          prompt, task: of the edit.
          size: width and height of the images.
        """
        try:
            queries, _ = self._for_size(size[::-1])
        except ValueError as error:  # of these proportions
            return str(error)
        quotes = Dimension.TEXT_ALIGNMENT in DIMENSIONS[task] and not queries.cut_prompts
        return queries.unfit(prompt) if quotes else ""

    def _given(
        self, pictures: Pictures | None, name: str, needed: bool, count: int
    ) -> list[PictureSource]:
        """The masks or sources of `count` pairs; [] if the judge does not look at them."""
        if not needed:
            return []
        if pictures is None:
            raise ValueError(
                f"this judge was trained to see {self.view.sees}: give the {name}s of the edits "
                f"({name}s, --{name} on the command line)"
            )
        found = as_pictures(pictures, f"{name}s")
        if len(found) not in (1, count):
            raise ValueError(f"{len(found)} {name}s for {count} pairs")
        return found * (count if len(found) == 1 else 1)

    def _answers(
        self,
        pixels: Float32[np.ndarray, "p h w 3"],
        seen: Mapping[str, np.ndarray],
        tasks: Sequence[Task],
        dimensions: Sequence[Dimension],
        prompts: Sequence[str],
    ) -> Float32[np.ndarray, "b"]:
        """P("Yes") of pairs of one size; all first images come before all second ones.

        `seen` are fields of `QueryBatch` that the judge needs.
        """
        queries, answer = self._for_size(pixels.shape[1:3])
        question = queries.encode_dimensions(tasks, dimensions, prompts)._replace(**seen)
        log_yes, _ = answer(
            self.params,
            *(self._place(half) for half in np.split(pixels, 2)),
            jax.tree.map(self._place, question),
        )
        return np.exp(np.asarray(log_yes, np.float32)[: len(tasks), 0])

    def _compile(self, size: tuple[int, int]) -> tuple[QueryTokenizer, MeshFunction]:
        """Query tokenizer and jitted scorer for images of one size."""
        judge = self._read(size)
        return judge.queries, mesh_jit(judge.scorer.score, self.mesh)

    def _place(self, samples: np.ndarray) -> jax.Array:
        return jax.device_put(pad_batch(samples, self.mesh), batch_sharding(self.mesh))


def _mask(mask: PictureSource, size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """A mask in the width and height of the pictures; raises as `mask_pixels`, `check_shapes`."""
    check_shapes(size, read_mask(mask).size)
    return mask_pixels(mask, size[::-1])[..., 0] > 0


def _dimension(name: str, task: Task, prompt: str) -> Dimension:
    dimension = dimension_named(name)
    if dimension not in DIMENSIONS[task]:
        known = ", ".join(DIMENSIONS[task])
        raise ValueError(f"dimension {name!r} is not judged for {task.title}: {known}")
    if dimension is Dimension.TEXT_ALIGNMENT and not prompt:
        raise ValueError("dimension 'text_alignment' needs a prompt")
    return dimension
