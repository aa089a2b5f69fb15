"""Judges from folders in the layout of transformers' Qwen2.5-VL."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import PyTree

from onereward_jax.convert import (
    QWEN2_5_VL,
    component_config,
    load_params,
    load_tokenizer,
    read_preprocessor,
)
from onereward_jax.models.qwen2_5_vl import Qwen2_5_VL, Qwen2_5_VLConfig, init_params
from onereward_jax.parallel import abstract_arrays
from onereward_jax.reward.preprocess import ImageProcessor
from onereward_jax.reward.query import (
    ANSWERS,
    TEMPLATE_VERSION,
    QueryTokenizer,
    check_template_version,
    query_texts,
)
from onereward_jax.reward.scorer import Scorer

QUERY_FILE = "onereward_query.json"
"""Beside the weights of a judge we trained: the query template it answers."""


class Judge(NamedTuple):
    """A judge without its weights.

    Attributes:
      scorer: asks it.
      queries: makes its questions.
    """

    scorer: Scorer
    queries: QueryTokenizer


def read_judge(
    folder: str | Path,
    size: tuple[int, int],
    *,
    suffix_length: int = 64,
    dtype: Any = jnp.float32,
    param_dtype: Any = jnp.float32,
    remat: str = "none",
    answers_only: bool = False,
) -> Judge:
    """The static half of the judge in `folder`; reads configurations and tokenizer, no weights.

    Args:
      folder: with config.json, preprocessor_config.json and tokenizer.
      size: (height, width) of the pictures to be compared.
      suffix_length: see `QueryTokenizer`.
      dtype, param_dtype, remat: see `Qwen2_5_VL`.
      answers_only: see `Scorer`.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: another kind of model, an unsupported field, or a judge trained with another
        query template.
    """
    folder = Path(folder)
    config = Qwen2_5_VLConfig.from_dict(component_config(folder, QWEN2_5_VL))
    if (folder / QUERY_FILE).is_file():
        check_template_version(json.loads((folder / QUERY_FILE).read_text())["template_version"])
    processor = ImageProcessor.from_dict(read_preprocessor(folder))
    queries = QueryTokenizer(
        load_tokenizer(folder), processor.tokens_per_image(*size), suffix_length
    )
    model = Qwen2_5_VL(config, dtype=dtype, param_dtype=param_dtype, remat=remat)
    scorer = Scorer(model, processor, queries.layout, answers_only)
    return Judge(scorer, queries)


def load_judge_params(folder: str | Path, scorer: Scorer, mesh: Mesh) -> PyTree:
    """The weights in `folder`, laid out over `mesh`; raises as `convert.load_params`."""
    boxed = jax.eval_shape(functools.partial(init_params, scorer.model), jax.random.key(0))
    return load_params(Path(folder), abstract_arrays(boxed, mesh), QWEN2_5_VL)


def write_template_version(folder: str | Path) -> None:
    """Notes in a judge's folder which query template it was trained with, and its words."""
    content = {
        "template_version": TEMPLATE_VERSION,
        "answers": list(ANSWERS),
        "queries": query_texts(),
    }
    text = json.dumps(content, indent=1, ensure_ascii=False)
    (Path(folder) / QUERY_FILE).write_text(text + "\n", encoding="utf-8")
