"""The jitted functions of a config, with abstract arguments: no weights, no arrays.

The builders and the settings are those of the stages. Parameters and batches are
`jax.ShapeDtypeStruct`s. If a model folder does not exist, the config files in the package are
used instead. The first job of a stage is the one that takes most of its time.
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict, FrozenConfigDict

from onereward_jax.common.user_path import user_path
from onereward_jax.convert import FLUX, QWEN2_5_VL, read_config
from onereward_jax.convert.hub import PACKAGE
from onereward_jax.data.aspect_buckets import Size, bucket_sizes
from onereward_jax.parallel import batch_sharding, mesh_jit
from onereward_jax.policy import read_policy
from onereward_jax.policy.generate import make_generate
from onereward_jax.policy.policy_loader import abstract_params
from onereward_jax.reward import WHOLE, JudgeView
from onereward_jax.reward.judge_loader import abstract_reward_params, read_scorer
from onereward_jax.reward.judge_panel import panel_of
from onereward_jax.reward.stacked_judges import abstract_judges
from onereward_jax.stages.make_reward import needs_judge
from onereward_jax.stages.reward_settings import (
    query_template,
    reward_options,
    reward_settings,
    trained_view,
)
from onereward_jax.stages.rl_settings import (
    asks_held_out,
    editor_options,
    judge_options,
    method_of,
    panel_options,
    rl_settings,
)
from onereward_jax.stages.settings import check_batch, compute_dtype
from onereward_jax.train_compile.job import Job, Main, Written
from onereward_jax.training.abstract_batches import (
    abstract_edits,
    abstract_pairs,
    abstract_questions,
    abstract_rl_batch,
)
from onereward_jax.training.count_jaxpr_flops import Assumptions
from onereward_jax.training.model_flops import (
    edit_model_flops,
    full_attention_share,
    int8_passes,
    reward_model_flops,
    rollout_int8_flops,
    rounded_shapes,
)
from onereward_jax.training.reward_step import (
    abstract_reward_state,
    make_answers,
    make_reward_step,
)
from onereward_jax.training.rl_config import Frozen, RLModels
from onereward_jax.training.rl_conflicts import make_conflicts
from onereward_jax.training.rl_step import abstract_rl_state, make_preview
from onereward_jax.training.rl_weights import abstract_reference
from onereward_jax.training.rollout_int8 import abstract_int8

Jobs = dict[str, Job]
"""Name -> job of a stage."""

PUBLISHED = PACKAGE / "published_configs"
"""Config files of the published models, without weights."""


def model_folder(name: str, field: str) -> pathlib.Path:
    """The folder with a model's config files: a local folder, else one of the package.

    Args:
      name: path, or hub id of a published model.
      field: the config field that holds `name`, for the error message.

    Raises:
      FileNotFoundError: there is neither.
    """
    given = user_path(name)
    for folder in (given, PACKAGE / given, PUBLISHED / given.name):
        if folder.is_dir():
            return folder
    known = ", ".join(sorted(path.name for path in PUBLISHED.iterdir()))
    raise FileNotFoundError(
        f"{field}: there is no folder {given}, nor an architecture among {known}"
    )


def editor_folder(config: FrozenConfigDict) -> pathlib.Path:
    """The folder of `config.models.editor`; raises as `model_folder`."""
    return model_folder(config.models.editor, "config.models.editor")


def judge_folder(config: FrozenConfigDict) -> pathlib.Path:
    """The folder of `config.models.judge`; raises as `model_folder`."""
    return model_folder(config.models.judge, "config.models.judge")


def largest_size(config: FrozenConfigDict) -> Size:
    """The bucket size with the most pixels."""
    return max(bucket_sizes(config.data.image_size, config.data.aspect_ratios), key=math.prod)


def rl_jobs(config: FrozenConfigDict, mesh: Mesh) -> Jobs:
    """The step of the stage `rl`, and the function that draws its sample images.

    Raises:
      ValueError: the reward is a plugin instead of the judge: its shapes are not in the config.
    """
    method = method_of(config)
    if method.asks and not needs_judge(config):
        raise ValueError(
            f"config.rl.reward is {config.rl.reward!r}: only the step with the judge is compiled"
        )
    size = largest_size(config)
    editor = read_policy(editor_folder(config), **editor_options(config))
    judge = scorer = held_out = share = None
    panel = panel_options(config)
    if method.asks:
        judge = read_scorer(
            judge_folder(config),
            size,
            template=query_template(config),
            view=trained_view(config),
            **judge_options(config),
        )
        scorer, share = panel_of(judge, **panel), full_attention_share(judge)
        held_out = panel_of(judge, **panel | {"judges": 1}) if asks_held_out(config) else None
    models = RLModels(editor, scorer, method.asks, held_out)
    settings = rl_settings(config)
    batch = abstract_rl_batch(
        models.editor.transformer.config,
        scorer.layout if method.asks else None,
        config.rl.batch_size,
        size,
        config.embed.max_length,
        jnp.dtype(config.models.dtype),
        mesh,
        scorer.view if method.asks else WHOLE,
        pairs=method.batches == "pairs",
        references=settings.references == "bank",
        targets=method.batches == "triplets" or config.rl.flow_matching_weight > 0,
    )
    state = abstract_rl_state(models, settings, mesh)
    frozen = Frozen(
        reference=abstract_reference(models, settings, mesh),
        vae=abstract_params(models.editor, mesh).vae,
        judge=abstract_judges(judge, mesh, panel["judges"], int8=config.rl.judge_int8)
        if method.asks
        else None,
        base=abstract_params(models.editor, mesh).transformer if settings.lora else None,
        held_out=abstract_reward_params(judge, mesh, int8=config.rl.judge_int8)
        if held_out
        else None,
        int8=abstract_int8(models, settings, mesh),
    )
    step = method.make_step(models, settings, mesh)
    key = jax.eval_shape(lambda: jax.random.key(0))
    assumptions = Assumptions(method.loop_trips(settings), 1.0 if share is None else share)
    transformer = frozen.base if settings.lora else state.params
    params = (transformer, frozen.vae, frozen.judge)
    minimum = method.model_flops(models, settings, params, batch, assumptions)
    arguments = (state, frozen, batch, key)
    main = Main(
        weights=transformer,
        dtype=models.editor.transformer.dtype,
        tokens=models.editor.token_count(size) + config.embed.max_length,
        passes=method.passes(settings),
        learns=True,
        int8_passes=int8_passes(settings, assumptions),
        int8=rounded_shapes(transformer) if settings.rollout_int8 else None,
    )
    architecture = read_config(editor_folder(config) / "transformer")
    written = Written(state.params, FLUX, architecture, stays=(state.ema, frozen))
    batch_size = config.rl.batch_size
    preview = make_preview(models, settings, mesh)
    jobs = {
        # A LoRA adapter is small and saved by other code.
        "rl": Job(
            step,
            arguments,
            batch_size,
            minimum,
            assumptions,
            main,
            rollout_int8_flops(models, settings, transformer, batch, assumptions),
            written=None if settings.lora else written,
        ),
        "rl, samples": Job(preview, arguments, batch_size, 0.0, assumptions),
    }
    if config.rl.conflicts_every:
        conflicts = make_conflicts(models, settings, mesh)
        jobs["rl, conflicts"] = Job(conflicts, arguments, batch_size, 0.0, assumptions)
    return jobs


def reward_jobs(config: FrozenConfigDict, mesh: Mesh) -> Jobs:
    """The step of the stage `reward`, and the function that measures its accuracy."""
    size, folder, batch_size = largest_size(config), judge_folder(config), config.reward.batch_size
    scorer = read_scorer(folder, size, **reward_options(config))
    settings = reward_settings(config)
    pairs = abstract_pairs(scorer.layout, batch_size, size, mesh, scorer.view)
    state = abstract_reward_state(scorer, settings, mesh)
    step = make_reward_step(scorer, settings, mesh)
    assumptions = Assumptions(true_share=full_attention_share(scorer))
    base = abstract_reward_params(scorer, mesh)
    minimum = reward_model_flops(scorer, base, pairs, assumptions, settings.lora)
    # Each pair is judged in both orders: two sequences.
    tokens = 2 * (scorer.layout.prefix_length + scorer.layout.packed_length)
    main = Main(base, scorer.model.dtype, tokens, 2.0 if settings.lora else 3.0, learns=True)
    written = Written(base, QWEN2_5_VL, read_config(folder))
    answers, frozen = make_answers(scorer, settings, mesh), (base,) if settings.lora else ()
    return {
        "reward": Job(
            step, (state, pairs, *frozen), batch_size, minimum, assumptions, main, written=written
        ),
        "reward, accuracy": Job(
            answers,
            (state.params, pairs, *frozen),
            batch_size,
            0.0,
            assumptions,
            resident=state.opt_state,
        ),
    }


def candidates_jobs(config: FrozenConfigDict, mesh: Mesh) -> Jobs:
    """The edits of the stage `candidates`."""
    section = config.candidates
    return {"candidates": _edits(config, mesh, section.batch_size, section.num_steps)}


def references_jobs(config: FrozenConfigDict, mesh: Mesh) -> Jobs:
    """The edits of the stage `references`."""
    steps = (config.rl.num_steps,)
    return {"references": _edits(config, mesh, config.candidates.batch_size, steps)}


def evaluate_jobs(config: FrozenConfigDict, mesh: Mesh) -> Jobs:
    """The edits of the stage `evaluate` with one editor, and the scores of each of its judges."""
    section = config.evaluate
    jobs = {"evaluate, edits": _edits(config, mesh, section.batch_size, (section.num_steps,))}
    if needs_judge(config) or "reward" in config.stages:
        folder, int8 = judge_folder(config), config.rl.judge_int8
        jobs["evaluate, judge"] = _opinions(config, mesh, folder, int8, trained_view(config))
    held_out = None
    if section.judge:
        folder = model_folder(section.judge, "config.evaluate.judge")
        held_out = _opinions(config, mesh, folder, int8=False)
    elif config.reward.held_out:
        held_out = _opinions(config, mesh, judge_folder(config), False, trained_view(config))
    return jobs | ({"evaluate, held-out judge": held_out} if held_out else {})


def _edits(config: FrozenConfigDict, mesh: Mesh, batch_size: int, numbers: Sequence[int]) -> Job:
    """Edits of a batch; `numbers` are the numbers of sampling steps that the stage uses."""
    size, dtype, solver = largest_size(config), compute_dtype(config), config.models.solver
    editor = read_policy(editor_folder(config), dtype=dtype, param_dtype=dtype, solver=solver)
    batch = abstract_edits(
        editor.transformer.config,
        batch_size,
        size,
        config.embed.max_length,
        jnp.dtype(config.models.dtype),
        max(numbers) + 1,
        mesh,
    )
    generate = make_generate(editor, size, mesh)
    params = abstract_params(editor, mesh)
    assumptions = Assumptions(loop_trips=sum(numbers) / len(numbers))
    minimum = edit_model_flops(editor, params.transformer, params.vae, batch, assumptions)
    arguments = (params, batch, jax.ShapeDtypeStruct((), jnp.int32))
    main = Main(
        weights=params.transformer,
        dtype=editor.transformer.dtype,
        tokens=editor.token_count(size) + config.embed.max_length,
        passes=assumptions.loop_trips,
        learns=False,
    )
    return Job(generate, arguments, batch_size, minimum, assumptions, main)


def _opinions(
    config: FrozenConfigDict,
    mesh: Mesh,
    folder: pathlib.Path,
    int8: bool,
    view: JudgeView | None = None,
) -> Job:
    """A judge's scores of a batch of images; `view` as of `read_scorer`."""
    size, batch_size = largest_size(config), config.evaluate.batch_size
    options = judge_options(config)
    scorer = read_scorer(folder, size, template=query_template(config), view=view, **options)
    images, queries = abstract_questions(scorer.layout, batch_size, size, mesh, scorer.view)
    arguments = (abstract_reward_params(scorer, mesh, int8=int8), images, images, queries)
    assumptions = Assumptions(true_share=full_attention_share(scorer))
    ask = mesh_jit(scorer.score, mesh, out_shardings=batch_sharding(mesh))
    return Job(ask, arguments, batch_size, 0.0, assumptions)


JOBS: dict[str, Callable[[FrozenConfigDict, Mesh], Jobs]] = {
    "candidates": candidates_jobs,
    "reward": reward_jobs,
    "references": references_jobs,
    "rl": rl_jobs,
    "evaluate": evaluate_jobs,
}
"""Stage -> function that makes its jobs, in the order of a run."""


def stages_to_compile(config: ConfigDict) -> list[str]:
    """Those of `JOBS` that a run of the config has."""
    names = set(config.stages)
    if "rl" in names and config.rl.references == "bank":
        names.add("references")
    return [stage for stage in JOBS if stage in names]


def make_programs(config: ConfigDict, stage: str, mesh: Mesh) -> Jobs:
    """All jobs of `stage` on `mesh`, by name.

    Raises:
      ValueError: config fields contradict each other or the mesh.
      FileNotFoundError: see `model_folder`.
    """
    frozen = FrozenConfigDict(config)
    check_batch(frozen, "candidates" if stage == "references" else stage, mesh)
    return JOBS[stage](frozen, mesh)


def make_program(config: ConfigDict, stage: str, mesh: Mesh) -> Job:
    """The first job of `stage`; raises as `make_programs`."""
    return next(iter(make_programs(config, stage, mesh).values()))
