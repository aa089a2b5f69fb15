"""The jitted steps of a config, lowered from shapes alone: nothing is loaded, nothing is made.

The builders and the settings are those of the stages; what differs is that parameters and batches
are `jax.ShapeDtypeStruct`s and that a folder of the package stands in for a model folder that is
not there.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict, FrozenConfigDict

from onereward_jax.convert.sources import PACKAGE
from onereward_jax.data.buckets import Size, bucket_sizes
from onereward_jax.parallel import MeshFunction
from onereward_jax.policy import read_editor
from onereward_jax.policy.generate import make_generate
from onereward_jax.policy.loading import abstract_params
from onereward_jax.reward.loading import abstract_judge, read_scorer
from onereward_jax.stages.rewards import needs_judge
from onereward_jax.stages.settings import (
    check_batch,
    compute_dtype,
    editor_options,
    judge_options,
    query_template,
    reward_options,
    reward_settings,
    rl_settings,
)
from onereward_jax.training.abstract_batches import (
    abstract_edits,
    abstract_pairs,
    abstract_rl_batch,
)
from onereward_jax.training.flops import Assumptions
from onereward_jax.training.minimum import (
    edit_minimum,
    full_attention_share,
    reward_minimum,
    rl_minimum,
)
from onereward_jax.training.reward_step import abstract_reward_state, make_reward_step
from onereward_jax.training.rl_config import Frozen, RLModels
from onereward_jax.training.rl_step import abstract_rl_state, make_rl_step
from onereward_jax.training.rl_weights import abstract_reference

ARCHITECTURES = PACKAGE / "architectures"
"""Configuration files of the published models, without weights."""


@dataclasses.dataclass(frozen=True)
class Main:
    """The model that most of a step is spent in.

    Attributes:
      weights: shapes and shardings.
      dtype: that they are computed in.
      tokens: of a sample.
      passes: forwards of a step and, each for two, backward passes.
      learns: whether there are backward passes.
    """

    weights: Any
    dtype: Any
    tokens: int
    passes: float
    learns: bool


@dataclasses.dataclass(frozen=True)
class Job:
    """A step and what it will be called with.

    Attributes:
      function: as training builds it.
      arguments: shapes, dtypes and shardings.
      batch_size: samples of one step.
      main: what estimates go by.
      minimum_flops: of a step on all devices, see `minimum`.
      assumptions: what a trace of it leaves open.
    """

    function: MeshFunction
    arguments: tuple[Any, ...]
    batch_size: int
    main: Main
    minimum_flops: float
    assumptions: Assumptions


def model_folder(config: FrozenConfigDict, name: str) -> pathlib.Path:
    """The folder of the configuration of "editor" or "judge".

    `config.models.<name>` as a run finds it, or the architecture of that name.

    Raises:
      FileNotFoundError: neither is there.
    """
    given = pathlib.Path(config.models[name]).expanduser()
    for folder in (given, PACKAGE / given, ARCHITECTURES / given.name):
        if folder.is_dir():
            return folder
    known = ", ".join(sorted(path.name for path in ARCHITECTURES.iterdir()))
    raise FileNotFoundError(
        f"config.models.{name}: there is no folder {given}, nor an architecture among {known}"
    )


def largest_size(config: FrozenConfigDict) -> Size:
    """Of the sizes that pictures come in, the one with the most pixels."""
    sizes = bucket_sizes(config.data.image_size, config.data.aspect_ratios)
    return max(sizes, key=math.prod)


def rl_job(config: FrozenConfigDict, mesh: Mesh) -> Job:
    """The step of the stage `rl`.

    Raises:
      ValueError: the reward is another than the judge, whose sizes no configuration tells.
    """
    if not needs_judge(config):
        raise ValueError(
            f"config.rl.reward is {config.rl.reward!r}: only the step with the judge is compiled"
        )
    size = largest_size(config)
    models = RLModels(
        read_editor(model_folder(config, "editor"), **editor_options(config)),
        read_scorer(
            model_folder(config, "judge"),
            size,
            template=query_template(config),
            **judge_options(config),
        ),
    )
    settings = rl_settings(config)
    batch = abstract_rl_batch(
        models.editor.transformer.config,
        models.scorer.layout,
        config.rl.batch_size,
        size,
        config.embed.max_length,
        jnp.dtype(config.models.dtype),
        mesh,
    )
    state = abstract_rl_state(models, settings, mesh)
    frozen = Frozen(
        reference=abstract_reference(models, settings, mesh),
        vae=abstract_params(models.editor, mesh).vae,
        judge=abstract_judge(models.scorer, mesh, int8=config.rl.judge_int8),
        base=abstract_params(models.editor, mesh).transformer if settings.lora else None,
    )
    step = make_rl_step(models, settings, mesh)
    key = jax.eval_shape(lambda: jax.random.key(0))
    rollout_steps = (settings.first_index + settings.last_index) / 2
    assumptions = Assumptions(rollout_steps, full_attention_share(models.scorer))
    transformer = frozen.base if settings.lora else state.params
    params = (transformer, frozen.vae, frozen.judge)
    minimum = rl_minimum(models, settings, params, batch, assumptions)
    arguments = (state, frozen, batch, key)
    main = Main(
        weights=transformer,
        dtype=models.editor.transformer.dtype,
        tokens=models.editor.token_count(size) + config.embed.max_length,
        passes=settings.num_steps + rollout_steps + (2 if settings.lora else 3),
        learns=True,
    )
    return Job(step, arguments, config.rl.batch_size, main, minimum, assumptions)


def reward_job(config: FrozenConfigDict, mesh: Mesh) -> Job:
    """The step of the stage `reward`."""
    size = largest_size(config)
    scorer = read_scorer(model_folder(config, "judge"), size, **reward_options(config))
    settings = reward_settings(config)
    pairs = abstract_pairs(scorer.layout, config.reward.batch_size, size, mesh)
    state = abstract_reward_state(scorer, settings, mesh)
    step = make_reward_step(scorer, settings, mesh)
    assumptions = Assumptions(true_share=full_attention_share(scorer))
    minimum = reward_minimum(scorer, state.params, pairs, assumptions)
    # Both orders of a pair: two sequences.
    tokens = 2 * (scorer.layout.prefix_length + scorer.layout.packed_length)
    main = Main(state.params, scorer.model.dtype, tokens, passes=3.0, learns=True)
    return Job(step, (state, pairs), config.reward.batch_size, main, minimum, assumptions)


def candidates_job(config: FrozenConfigDict, mesh: Mesh) -> Job:
    """The call of the stage `candidates`."""
    size = largest_size(config)
    kind = compute_dtype(config)
    editor = read_editor(model_folder(config, "editor"), dtype=kind, param_dtype=kind)
    batch = abstract_edits(
        editor.transformer.config,
        config.candidates.batch_size,
        size,
        config.embed.max_length,
        jnp.dtype(config.models.dtype),
        max(config.candidates.num_steps) + 1,
        mesh,
    )
    generate = make_generate(editor, size, mesh)
    params = abstract_params(editor, mesh)
    numbers = config.candidates.num_steps
    assumptions = Assumptions(loop_trips=sum(numbers) / len(numbers))
    minimum = edit_minimum(editor, params.transformer, params.vae, batch, assumptions)
    arguments = (params, batch, jax.ShapeDtypeStruct((), jnp.int32))
    main = Main(
        weights=params.transformer,
        dtype=editor.transformer.dtype,
        tokens=editor.token_count(size) + config.embed.max_length,
        passes=assumptions.loop_trips,
        learns=False,
    )
    return Job(generate, arguments, config.candidates.batch_size, main, minimum, assumptions)


JOBS: dict[str, Callable[[FrozenConfigDict, Mesh], Job]] = {
    "rl": rl_job,
    "reward": reward_job,
    "candidates": candidates_job,
}
"""Stage -> what it compiles."""


def make_job(config: ConfigDict, stage: str, mesh: Mesh) -> Job:
    """The step of `stage` on `mesh`.

    Raises:
      ValueError: fields that contradict each other or the mesh.
      FileNotFoundError: see `model_folder`.
    """
    frozen = FrozenConfigDict(config)
    check_batch(frozen, stage, mesh)
    return JOBS[stage](frozen, mesh)
