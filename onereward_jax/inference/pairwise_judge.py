"""The judge for inference: two images, a task and a dimension in, P("Yes") out.

Single letters: b batch, h, w image height and width.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float32, PyTree

from onereward_jax.convert import resolve_folder
from onereward_jax.inference.batch_padding import dtype_or_default, pad_batch
from onereward_jax.inference.picture_io import pixels_of
from onereward_jax.parallel import MeshFunction, batch_sharding, make_mesh, mesh_jit
from onereward_jax.pictures import PictureSource, picture_list
from onereward_jax.reward import QueryTokenizer
from onereward_jax.reward.judge_loader import load_reward_params, read_reward_model
from onereward_jax.tasks import DIMENSIONS, Dimension, Task, task_named

ANY_SIZE = (56, 56)
"""Image size of the scorer used to load the weights, which do not depend on it."""


class Judge:
    """A judge with its weights; the pure functions are in `reward`.

    Attributes:
      params: the weights.
      mesh: mesh of the weights.
    """

    def __init__(self, folder: Path, mesh: Mesh, options: dict[str, Any]) -> None:
        """Loads the weights; `from_pretrained` checks the arguments."""
        self.mesh = mesh
        self._read = functools.partial(read_reward_model, folder, **options)
        self._for_size = functools.lru_cache(maxsize=16)(self._compile)
        self.params: PyTree = load_reward_params(folder, self._read(ANY_SIZE).scorer, mesh)

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
        images_a: PictureSource | Sequence[PictureSource],
        images_b: PictureSource | Sequence[PictureSource],
        *,
        task: Task | str,
        dimension: Dimension | str,
        prompt: str | Sequence[str] = "",
    ) -> Float32[np.ndarray, "b"]:
        """P("Yes") to "is image a better than image b?", for each pair.

        The answer depends on the order; `score(b, a)` asks in the other order.

        Args:
          images_a, images_b: opened images or paths, equally many, all of one size.
          task: "fill", "extend", "remove", or the value of a `Task`.
          dimension: a dimension of the task (`tasks.DIMENSIONS`).
          prompt: prompt of the edit, one for all pairs or one per pair; only text alignment quotes
            it.

        Raises:
          FileNotFoundError: a path does not exist.
          ValueError: an image is unreadable, sizes or numbers of images differ, the task is
            unknown, or the dimension does not belong to it.
        """
        first, second = picture_list(images_a), picture_list(images_b)
        if len(first) != len(second):
            raise ValueError(f"images_a has {len(first)} images, images_b has {len(second)}")
        prompts = [prompt] * len(first) if isinstance(prompt, str) else list(prompt)
        if len(prompts) != len(first):
            raise ValueError(f"{len(prompts)} prompts for {len(first)} pairs")
        tasks = [task_named(task, one) for one in prompts]
        asked = [_dimension(dimension, one, words) for one, words in zip(tasks, prompts)]
        pixels = pixels_of([*first, *second])
        queries, answer = self._for_size(pixels.shape[1:3])
        question = queries.encode_dimensions(tasks, asked, prompts)
        log_yes, _ = answer(
            self.params,
            *(self._place(half) for half in np.split(pixels, 2)),
            jax.tree.map(self._place, question),
        )
        return np.exp(np.asarray(log_yes, np.float32)[: len(first), 0])

    def _compile(self, size: tuple[int, int]) -> tuple[QueryTokenizer, MeshFunction]:
        """Query tokenizer and jitted scorer for images of one size."""
        judge = self._read(size)
        return judge.queries, mesh_jit(judge.scorer.score, self.mesh)

    def _place(self, samples: np.ndarray) -> jax.Array:
        return jax.device_put(pad_batch(samples, self.mesh), batch_sharding(self.mesh))


def _dimension(name: Dimension | str, task: Task, prompt: str) -> Dimension:
    if name not in DIMENSIONS[task]:
        known = ", ".join(DIMENSIONS[task])
        raise ValueError(f"dimension {str(name)!r} is not judged for {task.title}: {known}")
    if name == Dimension.TEXT_ALIGNMENT and not prompt:
        raise ValueError("dimension 'text_alignment' needs a prompt")
    return Dimension(name)
