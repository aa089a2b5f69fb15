"""Stage `rl`: trains the editor with the judge's gradient (stage 3, Algorithms 1 and 2).

metrics.jsonl    rewards per task and dimension, monitors, norms, step times
events/          the same and the sample images for TensorBoard
samples/         every `sample_every` steps: source, mask, policy, reference
policy/, ema/    transformers of the trained policy and of its EMA (diffusers layout), or
                 their adapters if `config.rl.lora` is used
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from onereward_jax.chain.base_models import made_by
from onereward_jax.chain.plugins import check_plugin
from onereward_jax.chain.stage import Results, StageContext
from onereward_jax.common.pixels import to_uint8
from onereward_jax.common.rng import key_of
from onereward_jax.convert import FLUX, VAE, load_params, save_adapter, save_params
from onereward_jax.data.aspect_buckets import Size
from onereward_jax.data.mixing import Mixing
from onereward_jax.data.pipeline import TripletSequence, eval_batches, sizes_of, train_batches
from onereward_jax.data.triplets import Triplets
from onereward_jax.evaluation.picture_table import picture_table
from onereward_jax.models.lora import uniform_adapter
from onereward_jax.parallel import gather, is_writer, local_rows, replicate
from onereward_jax.parallel.progress import announce
from onereward_jax.policy import TextCache, open_text_cache, read_policy
from onereward_jax.policy.lora_adapters import abstract_editor_adapter, init_editor_adapter
from onereward_jax.policy.policy_loader import abstract_params, transformer_config
from onereward_jax.reward import WHOLE, Questions
from onereward_jax.reward.reward_interface import dimension_mask
from onereward_jax.stages.data import open_triplets
from onereward_jax.stages.flow_matching_targets import check_targets, check_targets_ahead
from onereward_jax.stages.guidance_settings import guidance_apart, rl_guidance
from onereward_jax.stages.make_reward import needs_judge, reward_of
from onereward_jax.stages.prompt_checks import check_prompts, prompts_of, settle_prompts
from onereward_jax.stages.rl_settings import (
    editor_options,
    judge_options,
    rl_settings,
    task_probabilities,
)
from onereward_jax.stages.run_training import Prepared, loop_of, run_training
from onereward_jax.stages.settings import check_batch
from onereward_jax.tasks import TASKS, Task
from onereward_jax.training.count_jaxpr_flops import Assumptions
from onereward_jax.training.metrics_jsonl import MetricsWriter
from onereward_jax.training.model_flops import full_attention_share, rl_model_flops
from onereward_jax.training.nonfinite_steps import Advice
from onereward_jax.training.rl_config import Frozen, RLModels
from onereward_jax.training.rl_step import (
    abstract_rl_state,
    first_rl_state,
    make_preview,
    make_rl_step,
)
from onereward_jax.training.rl_weights import abstract_reference, first_reference
from onereward_jax.training.train_loop import Periodic
from onereward_jax.training.train_state import TrainState


def check(context: StageContext) -> None:
    """Checks settings, batch and mesh, targets, reward and adapter before the first stage runs.

    Raises:
      FileNotFoundError, ValueError: names the config field.
    """
    config = context.config
    check_plugin(config, "rl.algorithm")
    settings = rl_settings(config)
    task_probabilities(config)
    check_batch(config, "rl", context.mesh)
    check_targets_ahead(context)
    if needs_judge(config):
        judge_options(config)
        if "reward" not in config.stages and not (context.output("reward") / "judge").is_dir():
            raise ValueError(
                'config.rl.reward is "judge", which the stage reward trains: add "reward" to '
                "config.stages, or set another reward"
            )
        check_prompts(context)
    else:
        check_plugin(config, "rl.reward")
    if settings.lora is not None and not made_by(config, "models.editor"):
        editor = read_policy(context.base_model("editor"), transformer=context.base_transformer())
        try:
            abstract_editor_adapter(editor, settings.lora, context.mesh)
        except ValueError as error:
            raise ValueError(f"config.rl.lora.targets: {error}") from error


def run(context: StageContext) -> Results:
    """Trains the policy and saves it; returns the numbers of steps and of refused steps."""
    config, mesh = context.config.rl, context.mesh
    settings = rl_settings(context.config)
    if apart := guidance_apart(context.config):
        announce(apart)
    base, transformer = context.base_model("editor"), context.base_transformer()
    adapts = settings.lora is not None
    editor = read_policy(base, transformer=transformer, **editor_options(context.config))
    shapes = abstract_params(editor, mesh)
    triplets = open_triplets(context, "train")
    check_targets(context, triplets)
    chances = available_tasks(task_probabilities(context.config), triplets)
    sizes, reward = sizes_of(triplets), reward_of(context)
    triplet_of = functools.partial(describe_triplet, triplets)
    queries = {size: reward.queries(size) for size in sizes} if reward.queries else None
    if needs_judge(context.config):
        settle_prompts(context, queries[sizes[0]], prompts_of({"train": triplets}))
    each = {size: RLModels(editor, reward.scorer(size), bool(queries)) for size in sizes}
    models = each[sizes[0]]  # the most frequent size: for samples and everything done only once
    steps = {size: make_rl_step(one, settings, mesh) for size, one in each.items()}
    preview = make_preview(models, settings, mesh)
    key = key_of(context.config.seed)

    def first_state() -> TrainState:
        if adapts:
            adapter = init_editor_adapter(editor, settings.lora, key, mesh)
            return first_rl_state(settings, adapter, mesh)
        return first_rl_state(settings, load_params(transformer, shapes.transformer, FLUX), mesh)

    def reference_of(state: TrainState) -> Any:
        """Reference weights: at step 0 from the policy, on resume loaded from the base model."""
        if int(state.step) == 0:
            return first_reference(models, settings, state.params, mesh)
        abstract = abstract_reference(models, settings, mesh)
        return None if abstract is None else load_params(transformer, abstract, FLUX)

    transform = make_transform(
        open_text_cache(context.output("embed") / "prompts"),
        queries,
        rl_guidance(context.config)["policy"].negative_prompt,
    )
    data = train_batches(
        triplets,
        config.batch_size,
        context.config.seed,
        mixing=Mixing(chances, config.task_per),
        transform=transform,
        rows=local_rows(config.batch_size, mesh),
    )
    rows = _one_of_each(triplets, chances, config.batch_size)
    captions = [": ".join((about["task"], about["prompt"])) for about in map(triplet_of, rows)]
    shown = next(eval_batches(triplets, config.batch_size, indices=rows, transform=transform))

    def prepare(state: TrainState) -> Prepared:
        # Load these only now: during the restore they would add to the peak memory of the state.
        frozen = Frozen(
            reference=reference_of(state),
            vae=load_params(base / "vae", shapes.vae, VAE),
            judge=reward.params,
            base=load_params(transformer, shapes.transformer, FLUX) if adapts else None,
        )

        def save_samples(state: TrainState, writer: MetricsWriter) -> None:
            batch = {name: array for name, array in shown.items() if name != "valid"}
            images, references = gather(preview(state, frozen, replicate(batch, mesh), key))
            if not is_writer():
                return
            columns = {
                "source": shown["image"],
                "mask": np.repeat(shown["mask"], 3, -1) * 2 - 1,
                "policy": images,
                "reference": references,
            }
            path = context.folder / "samples" / f"{int(state.step):06d}.png"
            path.parent.mkdir(exist_ok=True)
            pixels = sample_grid(int(state.step), columns, captions)
            Image.fromarray(pixels).save(path)
            writer.picture(int(state.step), "samples", pixels)

        def model_flops() -> float:
            parts = (shapes.transformer, frozen.vae, frozen.judge)
            rollout_steps = (settings.t1 + settings.t2) / 2
            assumptions = Assumptions(rollout_steps, full_attention_share(models.scorer))
            return rl_model_flops(models, settings, parts, shown, assumptions)

        return Prepared(
            lambda state, batch: steps[batch["image"].shape[1:3]](state, frozen, batch, key),
            [Periodic(config.sample_every, save_samples)],
            model_flops if needs_judge(context.config) else None,
        )

    state = run_training(
        context,
        prepare,
        name="rl",
        abstract=abstract_rl_state(models, settings, mesh),
        first=first_state,
        data=data,
        loop=loop_of(context.config, "rl"),
        optimizer=settings.optimizer,
        advice=Advice("config.rl.optimizer.learning_rate", triplet_of),
    )
    weights_of = {"policy": state.params, "ema": state.ema}
    results = {"steps": int(state.step), "refused": int(state.refused)}
    del state  # frees Adam's moments: gathering the weights for saving needs the memory
    for name, trained in weights_of.items():
        if adapts:
            adapter = uniform_adapter(trained, settings.lora.scale)
            save_adapter(context.folder / name, adapter, FLUX)
        else:
            architecture = transformer_config(base, transformer)
            save_params(context.folder / name, trained, FLUX, config=architecture)
    return results


def make_transform(
    cache: TextCache, queries: Mapping[Size, Questions] | None, negative_prompt: str
) -> Callable[[dict[str, Any]], dict[str, np.ndarray]]:
    """A function that replaces the prompts of a batch by embeddings and queries for `rl_step`.

    `queries`: image size -> query tokenizer; None for a reward without queries.
    """
    negative = cache.lookup([negative_prompt])

    def transform(batch: dict[str, Any]) -> dict[str, np.ndarray]:
        size, prompts = batch["image"].shape[1:3], list(batch["prompt"])
        embeds = cache.lookup(prompts)
        tasks = [TASKS[task] for task in batch["task"]]
        asked = queries[size].encode(tasks, prompts)._asdict() if queries else {}
        if queries and (view := getattr(queries[size], "view", WHOLE)).crop:
            asked["box"] = view.boxes(batch["mask"][..., 0] > 0)
        rest = {name: array for name, array in batch.items() if name != "prompt"}
        return rest | {
            "prompt_embeds": embeds.prompt_embeds,
            "pooled_prompt_embeds": embeds.pooled_prompt_embeds,
            "negative_prompt_embeds": np.repeat(negative.prompt_embeds, len(prompts), 0),
            "negative_pooled_prompt_embeds": np.repeat(
                negative.pooled_prompt_embeds, len(prompts), 0
            ),
            "dimension_mask": dimension_mask(tasks),
            **{f"query_{name}": array for name, array in asked.items() if array is not None},
        }

    return transform


def sample_grid(
    step: int, columns: Mapping[str, np.ndarray], captions: Sequence[str]
) -> UInt8[np.ndarray, "y x 3"]:
    """Images [b, h, w, 3] in [-1, 1] of each column side by side, one row per caption."""
    pixels = {name: list(to_uint8(column)[: len(captions)]) for name, column in columns.items()}
    return picture_table(f"step {step}", pixels, captions)


def describe_triplet(triplets: Triplets, row: int) -> dict[str, str]:
    """Id, task and prompt of a row of the training split, for messages."""
    about = {name: triplets.column(name)[row] for name in ("task", "prompt")}
    return {"triplet": f"train/{triplets.column('id')[row]}", **about}


def available_tasks(
    probabilities: Mapping[Task, float], triplets: TripletSequence
) -> dict[Task, float]:
    """p_k of the tasks that occur in the data, normalised to sum to 1; announces the others.

    Raises:
      ValueError: none of the tasks occurs.
    """
    found = {task: p for task, p in probabilities.items() if len(triplets.with_task(task))}
    if not found:
        raise ValueError(
            "config.rl.task_probabilities: the training split has no triplet of "
            + ", ".join(probabilities)
        )
    if lacking := [task.value for task in probabilities if task not in found]:
        announce(f"rl: the training split has no triplet of {', '.join(lacking)}: left out")
    return {task: p / sum(found.values()) for task, p in found.items()}


def _one_of_each(triplets: Triplets, tasks: Iterable[Task], count: int) -> list[int]:
    """Rows of up to `count` triplets with images of the most frequent size, cycling over tasks."""
    usual = (triplets.sizes == sizes_of(triplets)[0]).all(axis=1)
    found = [triplets.with_task(task) for task in tasks]
    by_task = [kept.tolist() for rows in found if len(kept := rows[usual[rows]])]
    turns = [row for rows in zip(*by_task) for row in rows]
    return turns[:count]
