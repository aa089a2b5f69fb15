"""Prompt embeddings of a data set, cached on disk.

    folder/prompts.json              file name -> its prompts, in the order of the rows
    folder/embeds-00000.safetensors  prompt_embeds [rows, l, d], pooled_prompt_embeds [rows, p]

FLUX's T5 embeddings take 4 MB per prompt in bfloat16, so they are not kept in memory: a lookup
reads only its rows.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from onereward_jax.common.atomic_file import atomic_file
from onereward_jax.parallel import is_writer
from onereward_jax.policy.model_inputs import PromptEmbeds

INDEX = "prompts.json"


@dataclasses.dataclass(frozen=True)
class TextCache:
    """An opened cache; has no file handles, so it can be pickled for worker processes.

    Attributes:
      folder: folder of the cache.
      rows: prompt -> (file name, row).
    """

    folder: Path
    rows: Mapping[str, tuple[str, int]]

    def lookup(self, prompts: Sequence[str]) -> PromptEmbeds:
        """Embeddings of `prompts`, in their order, in the stored dtype.

        Raises:
          ValueError: naming a prompt that is not in the cache.
        """
        for prompt in prompts:
            if prompt not in self.rows:
                raise ValueError(
                    f"prompt {prompt!r} is not among the {len(self.rows)} embedded prompts of "
                    f"{self.folder}: run the stage embed again, it adds missing prompts"
                )
        embeds = [self._read(*self.rows[prompt]) for prompt in prompts]
        return PromptEmbeds(*(np.stack(part) for part in zip(*embeds, strict=True)))

    def _read(self, name: str, row: int) -> tuple[np.ndarray, ...]:
        with safe_open(self.folder / name, framework="numpy") as file:
            return tuple(file.get_slice(field)[row] for field in PromptEmbeds._fields)


def open_text_cache(folder: str | Path) -> TextCache:
    """Opens the cache in `folder`.

    Raises:
      FileNotFoundError: there is no cache.
    """
    folder = Path(folder)
    index = folder / INDEX
    if not index.is_file():
        raise FileNotFoundError(f"no text cache: {index} does not exist; run the stage embed")
    files = json.loads(index.read_text(encoding="utf-8"))
    rows = {
        prompt: (name, row) for name, prompts in files.items() for row, prompt in enumerate(prompts)
    }
    return TextCache(folder, rows)


def embedded_prompts(folder: str | Path) -> frozenset[str]:
    """The prompts in the cache in `folder`; empty if there is no cache."""
    if not (Path(folder) / INDEX).is_file():
        return frozenset()
    return frozenset(open_text_cache(folder).rows)


def add_to_text_cache(
    folder: str | Path, batches: Iterable[tuple[Sequence[str], PromptEmbeds]]
) -> None:
    """Appends to a cache, or creates it: one file per batch; existing files are not changed.

    Each batch is added atomically: the index is replaced after its file is complete. All processes
    must call it; process 0 writes.

    Args:
      folder: folder of the cache.
      batches: prompts and their embeddings as numpy arrays, from `embed_prompts`.

    Raises:
      ValueError: the number of rows in a batch differs from its number of prompts.
    """
    folder = Path(folder)
    index, files = folder / INDEX, {}
    if index.is_file():
        files = json.loads(index.read_text(encoding="utf-8"))
    for prompts, embeds in batches:
        for field, array in embeds._asdict().items():
            if len(array) != len(prompts):
                raise ValueError(f"{field}: {len(array)} rows for {len(prompts)} prompts")
        # An existing file of that name is a leftover of an interrupted run: it is not in the index.
        name = f"embeds-{len(files):05d}.safetensors"
        files[name] = list(prompts)
        if not is_writer():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {k: np.ascontiguousarray(v) for k, v in embeds._asdict().items()}
        # save_file writes to a randomly named temporary file, which a killed process leaves behind.
        with atomic_file(folder / name, sync=True) as draft:
            draft.write_bytes(save(tensors))
        with atomic_file(index, sync=True) as draft:
            draft.write_text(json.dumps(files, ensure_ascii=False, indent=1), encoding="utf-8")
