"""Abstract batches for ahead-of-time compilation, with the shapes of the data pipelines.

Single letters as in `rl_rollout` and `reward_step`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from onereward_jax.data.aspect_buckets import Size
from onereward_jax.models.flux import FluxConfig
from onereward_jax.parallel import batch_sharding
from onereward_jax.policy import PromptEmbeds
from onereward_jax.policy.generate import EditBatch
from onereward_jax.reward import WHOLE, JudgeView, QueryBatch, QueryLayout, queries_in
from onereward_jax.tasks import MAX_DIMENSIONS

Abstract = jax.ShapeDtypeStruct


def abstract_rl_batch(
    flux: FluxConfig,
    layout: QueryLayout | None,
    batch_size: int,
    size: Size,
    text_length: int,
    embed_dtype: Any,
    mesh: Mesh,
    view: JudgeView = WHOLE,
    pairs: bool = False,
    references: bool = False,
    targets: bool = True,
) -> dict[str, Abstract]:
    """An abstract `rl_rollout.Batch`, or `methods.pair_batch.PairBatch`.

    Args:
      flux: config of the editor's transformer.
      layout: layout of the judge's queries; None: the step asks none.
      batch_size: global batch size.
      size: image height and width in pixels.
      text_length: T5 tokens per prompt.
      embed_dtype: dtype of the prompt embeddings.
      mesh: the mesh.
      view: what the judge sees.
      pairs: whether the batch has the pictures of pairs.
      references: whether it has those of a bank of references.
      targets: whether it has the targets of the triplets.
    """
    prompts = {
        "prompt_embeds": (embed_dtype, (text_length, flux.joint_attention_dim)),
        "pooled_prompt_embeds": (embed_dtype, (flux.pooled_projection_dim,)),
    }
    fields = {
        "image": (jnp.float32, (*size, 3)),
        "mask": (jnp.float32, (*size, 1)),
        "dimension_mask": (jnp.bool_, (MAX_DIMENSIONS,)),
        **prompts,
        "task": (jnp.int32, ()),
        "index": (jnp.int32, ()),
        **{f"negative_{name}": field for name, field in prompts.items()},
        **(_query_fields(layout, MAX_DIMENSIONS) | _box_field(view) if layout is not None else {}),
        **(_pair_fields(size) if pairs else {}),
        **(_target_fields(size) if targets else {}),
        **(_bank_fields(size) if references else {}),
    }
    return _arrays(fields, batch_size, mesh)


def abstract_pairs(
    layout: QueryLayout, batch_size: int, size: Size, mesh: Mesh, view: JudgeView = WHOLE
) -> dict[str, Abstract]:
    """An abstract batch of labelled pairs; arguments as in `abstract_rl_batch`."""
    fields = {
        "first": (jnp.float32, (*size, 3)),
        "second": (jnp.float32, (*size, 3)),
        "label": (jnp.float32, ()),
        "dimension": (jnp.int32, ()),
        **_query_fields(layout, 1),
        **_view_fields(view, size),
    }
    return _arrays(fields, batch_size, mesh)


def abstract_questions(
    layout: QueryLayout, batch_size: int, size: Size, mesh: Mesh, view: JudgeView = WHOLE
) -> tuple[Abstract, QueryBatch]:
    """Abstract images and queries of a judge; arguments as in `abstract_rl_batch`."""
    fields = {
        "image": (jnp.float32, (*size, 3)),
        **_query_fields(layout, MAX_DIMENSIONS),
        **_view_fields(view, size),
    }
    made = _arrays(fields, batch_size, mesh)
    return made["image"], queries_in(made)


def abstract_edits(
    flux: FluxConfig,
    batch_size: int,
    size: Size,
    text_length: int,
    embed_dtype: Any,
    points: int,
    mesh: Mesh,
) -> EditBatch:
    """An abstract `EditBatch` with `points` noise levels; other arguments as above."""
    fields = {
        "image": (jnp.float32, (*size, 3)),
        "mask": (jnp.float32, (*size, 1)),
        "prompt_embeds": (embed_dtype, (text_length, flux.joint_attention_dim)),
        "pooled_prompt_embeds": (embed_dtype, (flux.pooled_projection_dim,)),
        "sigmas": (jnp.float32, (points,)),
        "scale": (jnp.float32, ()),
        "noise_seed": (jnp.int32, ()),
    }
    made = _arrays(fields, batch_size, mesh)
    embeds = PromptEmbeds(made["prompt_embeds"], made["pooled_prompt_embeds"])
    return EditBatch(
        image=made["image"],
        mask=made["mask"],
        embeds=embeds,
        negative_embeds=embeds,
        sigmas=made["sigmas"],
        guidance_scale=made["scale"],
        true_cfg_scale=made["scale"],
        noise_seed=made["noise_seed"],
    )


def _target_fields(size: Size) -> dict[str, tuple[Any, tuple[int, ...]]]:
    return {"target": (jnp.float32, (*size, 3)), "has_target": (jnp.bool_, ())}


def _pair_fields(size: Size) -> dict[str, tuple[Any, tuple[int, ...]]]:
    return {
        "winner": (jnp.float32, (*size, 3)),
        "loser": (jnp.float32, (*size, 3)),
        "label": (jnp.float32, ()),
        "dimension": (jnp.int32, ()),
    }


def _bank_fields(size: Size) -> dict[str, tuple[Any, tuple[int, ...]]]:
    return {"reference": (jnp.float32, (*size, 3)), "reference_seed": (jnp.int32, ())}


def _box_field(view: JudgeView) -> dict[str, tuple[Any, tuple[int, ...]]]:
    return {"query_box": (jnp.int32, (4,))} if view.crop else {}


def _view_fields(view: JudgeView, size: Size) -> dict[str, tuple[Any, tuple[int, ...]]]:
    """What a judge sees besides two results, where the batch does not have the edit anyway."""
    if not view.source:
        return _box_field(view)
    source, mask = (jnp.float32, (*size, 3)), (jnp.float32, (*size, 1))
    return _box_field(view) | {"query_source": source, "query_mask": mask}


def _query_fields(layout: QueryLayout, dimensions: int) -> dict[str, tuple[Any, tuple[int, ...]]]:
    return {
        "query_prefix": (jnp.int32, (layout.prefix_length,)),
        "query_suffix": (jnp.int32, (dimensions, layout.suffix_length)),
        "query_suffix_mask": (jnp.bool_, (dimensions, layout.suffix_length)),
        "task": (jnp.int32, ()),
        "index": (jnp.int32, ()),
    }


def _arrays(
    fields: dict[str, tuple[Any, tuple[int, ...]]], batch_size: int, mesh: Mesh
) -> dict[str, Abstract]:
    """Abstract arrays from name -> (dtype, shape of one sample)."""
    return {
        name: Abstract((batch_size, *shape), dtype, sharding=batch_sharding(mesh))
        for name, (dtype, shape) in fields.items()
    }
