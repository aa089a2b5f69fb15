"""Stage `rl`: trains the editor with the judge's gradient (stage 3, Algorithms 1 and 2).

Other methods of `config.rl.algorithm` train on the same data, see `training.methods`.

metrics.jsonl    rewards per task and dimension, monitors, norms, step times
events/          the same and the sample images for TensorBoard
pairs.jsonl      for methods that learn from pairs: those of the answers
samples/         every `sample_every` steps: source, mask, policy, reference
kept/            the EMA after every `keep_every` steps, in folders named by the step
policy/, ema/    transformers of the trained policy and of its EMA (diffusers layout), or
                 their adapters if `config.rl.lora` is used
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
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
from onereward_jax.data.pipeline import sizes_of
from onereward_jax.evaluation.picture_table import picture_table
from onereward_jax.models.lora import uniform_adapter
from onereward_jax.parallel import gather, is_writer, replicate
from onereward_jax.parallel.progress import announce
from onereward_jax.policy import read_policy
from onereward_jax.policy.lora_adapters import abstract_editor_adapter, init_editor_adapter
from onereward_jax.policy.policy_loader import abstract_params, transformer_config
from onereward_jax.stages.data import open_triplets
from onereward_jax.stages.flow_matching_targets import check_targets, check_targets_ahead
from onereward_jax.stages.guidance_settings import guidance_apart
from onereward_jax.stages.held_out_gap import check_held_out, early_end, why_stopped
from onereward_jax.stages.make_reward import NO_REWARD, held_out_judge, needs_judge, reward_of
from onereward_jax.stages.prompt_checks import check_prompts, prompts_of, settle_prompts
from onereward_jax.stages.rl_batches import make_batches, open_samples
from onereward_jax.stages.rl_pairs import check_pairs
from onereward_jax.stages.rl_settings import (
    check_balance,
    check_references,
    check_rollout_int8,
    check_surrogate,
    editor_options,
    judge_options,
    method_of,
    rl_settings,
    task_probabilities,
)
from onereward_jax.stages.rl_start import goes_on, last_weights
from onereward_jax.stages.run_training import Prepared, loop_of, run_training
from onereward_jax.stages.settings import check_batch
from onereward_jax.training.count_jaxpr_flops import Assumptions
from onereward_jax.training.metrics_jsonl import MetricsWriter
from onereward_jax.training.model_flops import full_attention_share
from onereward_jax.training.nonfinite_steps import Advice
from onereward_jax.training.rl_config import Frozen, RLModels
from onereward_jax.training.rl_conflicts import conflict_scalars, make_conflicts
from onereward_jax.training.rl_step import abstract_rl_state, first_rl_state, make_preview
from onereward_jax.training.rl_weights import abstract_reference, first_reference
from onereward_jax.training.rollout_int8 import first_int8, keeps_int8
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
    check_balance(config)
    check_surrogate(config)
    check_references(config)
    check_rollout_int8(config)
    check_batch(config, "rl", context.mesh)
    check_targets_ahead(context)
    if method_of(config).batches == "pairs":
        check_pairs(context)
    if needs_judge(config):
        judge_options(config)
        if "reward" not in config.stages and not (context.output("reward") / "judge").is_dir():
            raise ValueError(
                'config.rl.reward is "judge", which the stage reward trains: add "reward" to '
                "config.stages, or set another reward"
            )
        check_prompts(context)
    elif method_of(config).asks:
        check_plugin(config, "rl.reward")
    check_held_out(context)
    if settings.lora is not None and not made_by(config, "models.editor"):
        editor = read_policy(context.base_model("editor"), transformer=context.base_transformer())
        try:
            abstract_editor_adapter(editor, settings.lora, context.mesh)
        except ValueError as error:
            raise ValueError(f"config.rl.lora.targets: {error}") from error


def run(context: StageContext) -> Results:
    """Trains the policy and saves it; returns the numbers of steps and of refused steps."""
    config, mesh = context.config.rl, context.mesh
    settings, method = rl_settings(context.config), method_of(context.config)
    if apart := guidance_apart(context.config):
        announce(apart)
    base, transformer = context.base_model("editor"), context.base_transformer()
    adapts = settings.lora is not None
    editor = read_policy(base, transformer=transformer, **editor_options(context.config))
    shapes = abstract_params(editor, mesh)
    triplets = open_triplets(context, "train")
    check_targets(context, triplets)
    samples = open_samples(context, triplets)
    sizes = list(dict.fromkeys([*sizes_of(triplets), *sizes_of(samples)]))
    reward = reward_of(context) if method.asks else NO_REWARD
    queries = {size: reward.queries(size) for size in sizes} if reward.queries else None
    if needs_judge(context.config):
        settle_prompts(context, queries[sizes[0]], prompts_of({"train": triplets}))
    batches = make_batches(context, triplets, samples, queries)
    held_out = held_out_judge(context.config, mesh, context.output("reward"))
    each = {
        size: RLModels(
            editor,
            reward.scorer(size),
            bool(queries),
            held_out.scorer(size) if held_out else None,
        )
        for size in sizes
    }
    models = each[sizes[0]]  # the most frequent size: for samples and everything done only once
    steps = {size: method.make_step(one, settings, mesh) for size, one in each.items()}
    preview = make_preview(models, settings, mesh)
    conflicts = make_conflicts(models, settings, mesh) if config.conflicts_every else None
    key = key_of(context.config.seed)

    def first_state() -> TrainState:
        if goes_on(context):
            last = functools.partial(last_weights, context, lora=settings.lora, mesh=mesh)
            state = first_rl_state(settings, last("policy", editor), mesh)
            return state._replace(ema=last("ema", editor))
        if adapts:
            adapter = init_editor_adapter(editor, settings.lora, key, mesh)
            return first_rl_state(settings, adapter, mesh)
        return first_rl_state(settings, load_params(transformer, shapes.transformer, FLUX), mesh)

    def reference_of(state: TrainState) -> Any:
        """Reference weights: at step 0 from the policy, otherwise loaded from the base model."""
        if int(state.step) == 0 and not goes_on(context):
            return first_reference(models, settings, state.params, mesh)
        abstract = abstract_reference(models, settings, mesh)
        return None if abstract is None else load_params(transformer, abstract, FLUX)

    def int8_of(state: TrainState, base: Any) -> Any:
        """The initial transformer in int8, from the weights that `reference_of` begins with."""
        if not keeps_int8(settings):
            return None
        whole = base
        if not adapts and int(state.step) == 0 and not goes_on(context):
            whole = state.params
        elif not adapts:
            whole = load_params(transformer, shapes.transformer, FLUX)
        return first_int8(models, settings, whole, mesh)

    def save_weights(name: str, trained: Any) -> None:
        if adapts:
            adapter = uniform_adapter(trained, settings.lora.scale)
            save_adapter(context.folder / name, adapter, FLUX)
        else:
            architecture = transformer_config(base, transformer)
            save_params(context.folder / name, trained, FLUX, config=architecture)

    def prepare(state: TrainState) -> Prepared:
        # Load these only now: during the restore they would add to the peak memory of the state.
        adapted = load_params(transformer, shapes.transformer, FLUX) if adapts else None
        frozen = Frozen(
            reference=reference_of(state),
            vae=load_params(base / "vae", shapes.vae, VAE),
            judge=reward.params,
            base=adapted,
            held_out=held_out.params if held_out else None,
            int8=int8_of(state, adapted),
        )

        def save_samples(state: TrainState, writer: MetricsWriter) -> None:
            shown = batches.shown
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
            pixels = sample_grid(int(state.step), columns, batches.captions)
            Image.fromarray(pixels).save(path)
            writer.picture(int(state.step), "samples", pixels)

        def measure_conflicts(state: TrainState, writer: MetricsWriter) -> None:
            step = int(state.step)
            batch = replicate(batches.measured(step), mesh)
            writer.write(step, conflict_scalars(conflicts(state, frozen, batch, key)))

        def keep_weights(state: TrainState, writer: MetricsWriter) -> None:
            if int(state.step) < config.steps:  # the last ones are saved below
                save_weights(f"kept/{int(state.step):06d}", state.ema)

        periodic = [Periodic(config.sample_every, save_samples)]
        if config.keep_every:
            periodic.append(Periodic(config.keep_every, keep_weights))
        if conflicts is not None:
            periodic.append(Periodic(config.conflicts_every, measure_conflicts))

        def model_flops() -> float:
            parts = (shapes.transformer, frozen.vae, frozen.judge)
            share = full_attention_share(models.scorer) if method.asks else 1.0
            assumptions = Assumptions(method.loop_trips(settings), share)
            return method.model_flops(models, settings, parts, batches.shown, assumptions)

        return Prepared(
            lambda state, batch: steps[batch["image"].shape[1:3]](state, frozen, batch, key),
            periodic,
            model_flops if needs_judge(context.config) or not method.asks else None,
        )

    state = run_training(
        context,
        prepare,
        name="rl",
        abstract=abstract_rl_state(models, settings, mesh),
        first=first_state,
        data=batches.data,
        loop=loop_of(context.config, "rl"),
        optimizer=settings.optimizer,
        advice=Advice("config.rl.optimizer.learning_rate", batches.describe),
        early_end=early_end(settings),
    )
    weights_of = {"policy": state.params, "ema": state.ema}
    results = {"steps": int(state.step), "refused": int(state.refused)}
    if told := why_stopped(settings, state):
        announce(f"rl: {told}")
        results["stopped"] = told
    del state  # frees Adam's moments: gathering the weights for saving needs the memory
    for name, trained in weights_of.items():
        save_weights(name, trained)
    return results


def sample_grid(
    step: int, columns: Mapping[str, np.ndarray], captions: Sequence[str]
) -> UInt8[np.ndarray, "y x 3"]:
    """Images [b, h, w, 3] in [-1, 1] of each column side by side, one row per caption."""
    pixels = {name: list(to_uint8(column)[: len(captions)]) for name, column in columns.items()}
    return picture_table(f"step {step}", pixels, captions)
