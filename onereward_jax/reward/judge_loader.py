"""Loads judges from folders in the layout of transformers' Qwen2.5-VL."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import PyTree

from onereward_jax.common.dataclass_fields import check_fields
from onereward_jax.convert import (
    QWEN2_5_VL,
    load_adapter,
    load_params,
    load_tokenizer,
    read_preprocessor,
)
from onereward_jax.convert.lora_files import PEFT_FILE
from onereward_jax.convert.safetensors_reader import read_json
from onereward_jax.models.int8 import abstract_quantized, quantize
from onereward_jax.models.lora import combine
from onereward_jax.models.lora_merge import merge_into
from onereward_jax.models.qwen2_5_vl import Qwen2_5_VL, init_params
from onereward_jax.parallel import abstract_arrays, mesh_jit
from onereward_jax.reward.image_preprocess import ImageProcessor
from onereward_jax.reward.judge_folder import check_weights, find_judge, judge_config
from onereward_jax.reward.judge_view import WHOLE, JudgeView
from onereward_jax.reward.query import QueryTokenCounts, QueryTokenizer
from onereward_jax.reward.query_template import QueryTemplate, packaged_template
from onereward_jax.reward.scorer import Scorer
from onereward_jax.tasks import Dimension, Task

QUERY_FILE = "onereward_query.json"
"""File in the folder of a judge trained here: its `QueryTemplate` and `JudgeView`."""

COUNTS_FILE = "query_tokens.json"
"""File that replaces the tokenizer if only sizes matter: `QueryTokenCounts`, template version."""


class RewardModel(NamedTuple):
    """A judge without its weights.

    Attributes:
      scorer: computes its answers.
      queries: makes its questions.
    """

    scorer: Scorer
    queries: QueryTokenizer


def read_reward_model(
    folder: str | Path,
    size: tuple[int, int],
    *,
    suffix_length: int = 64,
    dtype: Any = jnp.float32,
    param_dtype: Any = jnp.float32,
    remat: str = "none",
    answers_only: bool = False,
    template: QueryTemplate | None = None,
    view: JudgeView | None = None,
    cut_prompts: bool = False,
) -> RewardModel:
    """The static part of the judge in `folder`; reads configs and tokenizer, not weights.

    Args:
      folder: has config.json, preprocessor_config.json and the tokenizer; or an adapter whose base
        has them, see `find_judge`.
      size: (height, width) of the images to compare, in pixels.
      suffix_length: see `QueryTokenizer`.
      dtype, param_dtype, remat: see `Qwen2_5_VL`.
      answers_only: see `Scorer`.
      template: query template to train the judge with; None: the judge's own (`judge_template`).
      view: what the judge is trained to see; None: the judge's own (`judge_view`).
      cut_prompts: see `QueryTokenizer`.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: another kind of model, an unsupported field, more tokens than the model has words
        for, or a judge trained with a query template that is not in its folder.
    """
    folder = Path(folder)
    model, processor = _read_model(folder, dtype=dtype, param_dtype=param_dtype, remat=remat)
    home = find_judge(folder).model
    tokenizer, words = load_tokenizer(home), model.config.text_config.vocab_size
    if (count := len(tokenizer)) > words:
        raise ValueError(
            f"{home} has a tokenizer of {count} tokens, but its config.json says vocab_size {words}"
        )
    view = judge_view(folder) if view is None else view
    queries = QueryTokenizer(
        tokenizer,
        processor.tokens_per_image(*size),
        suffix_length,
        template=judge_template(folder) if template is None else template,
        view=view,
        cut_prompts=cut_prompts,
    )
    return RewardModel(Scorer(model, processor, queries.layout, answers_only, view), queries)


def read_scorer(
    folder: str | Path,
    size: tuple[int, int],
    *,
    suffix_length: int = 64,
    dtype: Any = jnp.float32,
    param_dtype: Any = jnp.float32,
    remat: str = "none",
    answers_only: bool = False,
    template: QueryTemplate | None = None,
    view: JudgeView | None = None,
    cut_prompts: bool = False,
) -> Scorer:
    """The scorer of `read_reward_model`, from the tokenizer or the counts in `COUNTS_FILE`.

    For ahead-of-time compilation, which only needs the sizes of a judge.

    Args, Raises: as `read_reward_model`.
    """
    folder = Path(folder)
    kinds = {"dtype": dtype, "param_dtype": param_dtype, "remat": remat}
    if not (folder / COUNTS_FILE).is_file():
        options = {"suffix_length": suffix_length, "answers_only": answers_only, **kinds}
        options |= {"template": template, "view": view, "cut_prompts": cut_prompts}
        return read_reward_model(folder, size, **options).scorer
    model, processor = _read_model(folder, **kinds)
    template = packaged_template() if template is None else template
    view, tokens = WHOLE if view is None else view, processor.tokens_per_image(*size)
    counts = read_counts(folder, template)
    layout = counts.layout(tokens, suffix_length, view.source, template.pictures)
    return Scorer(model, processor, layout, answers_only, view)


def read_counts(folder: str | Path, template: QueryTemplate | None = None) -> QueryTokenCounts:
    """The token counts in `folder` of the queries of `template` (None: the default one).

    The file has them by the versions of templates.

    Raises:
      FileNotFoundError: there are none.
      ValueError: there are none of this template, or they are incomplete.
    """
    path = Path(folder) / COUNTS_FILE
    version = (packaged_template() if template is None else template).version
    stored = read_json(path).get(version)
    if stored is None:
        raise ValueError(
            f"{path} has no counts of query template {version}: use a folder with the judge's "
            "tokenizer instead, it works for any template"
        )
    try:
        task = {Task(name): length for name, length in stored["task"].items()}
        suffix = {Dimension(name): length for name, length in stored["suffix"].items()}
        source = {shown: tuple(lengths) for shown, lengths in stored["source"].items()}
        return QueryTokenCounts(**stored | {"task": task, "suffix": suffix, "source": source})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not the token counts of queries: {error}") from error


def _read_model(
    folder: Path, *, dtype: Any, param_dtype: Any, remat: str
) -> tuple[Qwen2_5_VL, ImageProcessor]:
    home = find_judge(folder).model
    config = judge_config(home)
    try:
        processor = ImageProcessor.from_dict(read_preprocessor(home))
    except ValueError as error:
        raise ValueError(f"{home}: {error}") from error
    vision = config.vision_config
    for name, found, expected in (
        ("patch_size", processor.patch_size, vision.patch_size),
        ("temporal_patch_size", processor.temporal_patch_size, vision.temporal_patch_size),
        ("merge_size", processor.merge_size, vision.spatial_merge_size),
    ):
        if found != expected:
            raise ValueError(
                f"{home}: the image processor's {name} is {found}, but config.json's vision tower "
                f"has {expected}"
            )
    return Qwen2_5_VL(config, dtype=dtype, param_dtype=param_dtype, remat=remat), processor


def abstract_reward_params(scorer: Scorer, mesh: Mesh, *, int8: bool = False) -> PyTree:
    """Shapes and shardings of the result of `load_reward_params`."""
    boxed = jax.eval_shape(functools.partial(init_params, scorer.model), jax.random.key(0))
    abstract = abstract_arrays(boxed, mesh)
    return abstract_quantized(abstract) if int8 else abstract


def load_reward_params(
    folder: str | Path, scorer: Scorer, mesh: Mesh, *, int8: bool = False
) -> PyTree:
    """Loads the weights in `folder`, sharded over `mesh`; an adapter is merged into its base.

    Args:
      folder, scorer: the judge.
      mesh: mesh of the weights.
      int8: quantise linear layers to one byte per weight (`Quantized`), for a frozen judge.

    Raises:
      FileNotFoundError, ValueError: as `check_weights`, `convert.load_params`, `load_adapter`.
    """
    parts, abstract = find_judge(folder), abstract_reward_params(scorer, mesh)
    check_weights(parts.model)
    params = load_params(parts.model, abstract, QWEN2_5_VL)
    if parts.adapter is not None:
        adapter = load_adapter(parts.adapter / PEFT_FILE, abstract, QWEN2_5_VL)
        params = merge_into(params, combine([(adapter, 1.0)]), mesh)
    if not int8:
        return params
    shardings = jax.tree.map(
        lambda leaf: leaf.sharding, abstract_reward_params(scorer, mesh, int8=True)
    )
    return mesh_jit(quantize, mesh, out_shardings=shardings)(params)


def judge_template(folder: str | Path) -> QueryTemplate:
    """The query template of the judge in `folder`; the default one if it was not trained here.

    Raises:
      ValueError: the template is missing, or does not match the stated version.
    """
    path = _query_file(folder)
    if path is None:
        return packaged_template()
    stored = read_json(path)
    version = stored.get("template_version")
    if "template" not in stored:
        if version == packaged_template().version:
            return packaged_template()
        raise ValueError(
            f"{path}: the judge was trained with query template {version!r}, which is not in the "
            "file"
        )
    try:
        template = QueryTemplate.from_dict(stored.get("template"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if template.version != version:
        raise ValueError(
            f"{path}: the judge was trained with query template {version!r}, but the file has "
            f"{template.version!r}"
        )
    return template


def judge_view(folder: str | Path) -> JudgeView:
    """What the judge in `folder` was trained to see; whole pictures if the folder does not say.

    Raises:
      ValueError: the file has fields that are not read.
    """
    path = _query_file(folder)
    stored = {} if path is None else read_json(path).get("view", {})
    try:
        return JudgeView(**check_fields("view", JudgeView, dict(stored)))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _query_file(folder: str | Path) -> Path | None:
    parts = find_judge(folder)
    found = (parts.query / QUERY_FILE, parts.model / QUERY_FILE)
    return next((path for path in found if path.is_file()), None)


def write_judge_template(
    folder: str | Path, template: QueryTemplate, view: JudgeView = WHOLE
) -> None:
    """Writes what a judge was trained to be asked and to see to its folder."""
    content = {
        "template_version": template.version,
        "template": template.to_dict(),
        "answers": list(template.answers),
        "queries": template.queries(),
    }
    if view != WHOLE:
        content["view"] = dataclasses.asdict(view)
    text = json.dumps(content, indent=1, ensure_ascii=False)
    (Path(folder) / QUERY_FILE).write_text(text + "\n", encoding="utf-8")
