"""Wall-clock time of the RL step at the mini world's sizes, in total and per part.

    python benchmarks/rl_step.py [--devices 2] [--repeats 10] [--dimensions 4 1] [--no-parts]
    python benchmarks/rl_step.py --no-parts --rollout 8 6 --dimensions 4 --variants floors both
    python benchmarks/rl_step.py --no-parts --dimensions 4 --bank

A policy of 2.4 M parameters, a judge of 1.0 M, 8 pictures of 64x64, 20 reference and 15 policy
steps with classifier-free guidance, judged in 4 dimensions and in 1. Weights are random; the time
does not depend on them.

Each part is timed as a separate jitted function, so the parts may not add up to the step.
`--variants` also times the step with other balances of the dimensions (`training.rl_balance`), and
the monitor of their conflicts. The processor time of all threads does not depend on other programs.
`--bank` alternates steps with references sampled in the step and with those of a bank, and prints
the median ratios of neighbours in seconds and in processor time, beside that of their operations.
`--devices` splits the CPU into that many virtual devices, which shard the batch.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--devices", type=int, default=1, help="virtual CPU devices")
parser.add_argument("--repeats", type=int, default=10, help="timed repetitions; the median counts")
parser.add_argument("--dimensions", type=int, nargs="+", default=(4, 1), help="4, 1 or both")
parser.add_argument("--parts", action=argparse.BooleanOptionalAction, default=True)
parser.add_argument(
    "--rollout", type=int, nargs=2, default=(20, 15), help="steps of the reference and the policy"
)
parser.add_argument(
    "--variants",
    nargs="*",
    default=(),
    choices=("worst", "floors", "spread", "dimensions", "tasks", "both", "conflicts"),
)
parser.add_argument("--bank", action="store_true", help="compare with a bank of references")
ARGUMENTS = parser.parse_args()
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={ARGUMENTS.devices}"
)

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from onereward_jax.mini.mini_tokenizers import qwen_tokenizer
from onereward_jax.mini.pretrain.autoencoder import VAE_CONFIG
from onereward_jax.mini.pretrain.base_editor import FLUX_CONFIG, PROMPT_TOKENS, SCHEDULER
from onereward_jax.mini.pretrain.starting_judge import PIXELS, SUFFIX_TOKENS, judge_config
from onereward_jax.mini.world import prompts
from onereward_jax.models.flux import FluxTransformer
from onereward_jax.models.qwen2_5_vl import Qwen2_5_VL, Qwen2_5_VLConfig, init_params
from onereward_jax.models.vae import AutoencoderKL
from onereward_jax.parallel import make_mesh, mesh_jit, shard_batch
from onereward_jax.parallel.cpu_threads import set_cpu_threads
from onereward_jax.policy import FillPolicy, NoiseSchedule
from onereward_jax.policy.policy_loader import init_params as init_editor
from onereward_jax.reward import ImageProcessor, QueryTokenizer, Scorer, packaged_template
from onereward_jax.tasks import MAX_DIMENSIONS, TASKS, Task
from onereward_jax.training.apply_gradients import apply_gradients
from onereward_jax.training.count_jaxpr_flops import Assumptions
from onereward_jax.training.model_flops import rl_model_flops
from onereward_jax.training.optimizer import OptimizerConfig, make_optimizer
from onereward_jax.training.rl_balance import Balance
from onereward_jax.training.rl_config import Frozen, RLConfig, RLModels
from onereward_jax.training.rl_conflicts import make_conflicts
from onereward_jax.training.rl_loss import (
    judge_images,
    judge_prediction,
    predict_image,
)
from onereward_jax.training.rl_rollout import draw, embeds_of, roll_out
from onereward_jax.training.rl_step import first_rl_state, make_rl_step
from onereward_jax.training.target_loss import target_shares

SIDE, BATCH = 64, 8
REFERENCE_STEPS, POLICY_STEPS = ARGUMENTS.rollout
SEED = 0


def make_models() -> tuple[RLModels, QueryTokenizer]:
    """The architectures of the mini world, and the queries of its judge."""
    tokenizer = qwen_tokenizer([*prompts(), *packaged_template().texts()])
    processor = ImageProcessor(min_pixels=PIXELS, max_pixels=PIXELS)
    queries = QueryTokenizer(tokenizer, processor.tokens_per_image(SIDE, SIDE), SUFFIX_TOKENS)
    judge = Qwen2_5_VL(Qwen2_5_VLConfig.from_dict(judge_config(tokenizer)))
    editor = FillPolicy(
        FluxTransformer(FLUX_CONFIG), AutoencoderKL(VAE_CONFIG), NoiseSchedule.from_dict(SCHEDULER)
    )
    return RLModels(editor, Scorer(judge, processor, queries.layout)), queries


def make_batch(queries: QueryTokenizer, dimensions: int) -> dict[str, np.ndarray]:
    """Random pictures and prompts; all samples are judged in `dimensions` dimensions."""
    rng = np.random.default_rng(0)
    task = Task.FILL if dimensions == MAX_DIMENSIONS else Task.REMOVAL
    asked = queries.encode([task] * BATCH, ["a red apple"] * BATCH)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=(BATCH, *shape)).astype(np.float32)

    return {
        "image": np.tanh(normal(SIDE, SIDE, 3)),
        "target": np.tanh(normal(SIDE, SIDE, 3)),
        "has_target": np.ones(BATCH, np.bool_),
        "mask": np.ones((BATCH, SIDE, SIDE, 1), np.float32),
        "prompt_embeds": normal(PROMPT_TOKENS, FLUX_CONFIG.joint_attention_dim),
        "pooled_prompt_embeds": normal(FLUX_CONFIG.pooled_projection_dim),
        "negative_prompt_embeds": normal(PROMPT_TOKENS, FLUX_CONFIG.joint_attention_dim),
        "negative_pooled_prompt_embeds": normal(FLUX_CONFIG.pooled_projection_dim),
        "task": np.full(BATCH, TASKS.index(task), np.int32),
        "query_prefix": asked.prefix,
        "query_suffix": asked.suffix[:, :dimensions],
        "query_suffix_mask": asked.suffix_mask[:, :dimensions],
        "dimension_mask": asked.dimension_mask[:, :dimensions],
        "index": np.arange(BATCH, dtype=np.int32),
    }


def seconds(function: Callable[[], Any]) -> float:
    """Median time of a call, after one that compiles."""
    jax.block_until_ready(function())
    times = []
    for _ in range(ARGUMENTS.repeats):
        start = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - start)
    return float(np.median(times))


class StepTimes(NamedTuple):
    """Seconds: to compile, of a step, and of all threads in a step."""

    compiling: float
    step: float
    processor: float


def step_times(
    models: RLModels, config: RLConfig, frozen: Frozen, transformer: Any, batch: Any, mesh: Any
) -> StepTimes:
    """Times of the step that training runs."""
    key, state = jax.random.key(SEED), first_rl_state(config, transformer, mesh)
    step = make_rl_step(models, config, mesh)
    start = time.perf_counter()
    state, metrics = step(state, frozen, batch, key)
    jax.block_until_ready(metrics)
    first = time.perf_counter() - start
    times, used = [], []
    for _ in range(ARGUMENTS.repeats):
        start, busy = time.perf_counter(), time.process_time()
        state, metrics = step(state, frozen, batch, key)
        jax.block_until_ready(metrics)
        times.append(time.perf_counter() - start)
        used.append(time.process_time() - busy)
    median = float(np.median(times))
    return StepTimes(first - median, median, float(np.median(used)))


def conflict_times(
    models: RLModels, config: RLConfig, frozen: Frozen, transformer: Any, batch: Any, mesh: Any
) -> StepTimes:
    """Times of the monitor of conflicts."""
    key, state = jax.random.key(SEED), first_rl_state(config, transformer, mesh)
    conflicts = make_conflicts(models, config, mesh)
    start = time.perf_counter()
    jax.block_until_ready(conflicts(state, frozen, batch, key))
    first, busy = time.perf_counter(), time.process_time()
    for _ in range(ARGUMENTS.repeats):
        jax.block_until_ready(conflicts(state, frozen, batch, key))
    mean = (time.perf_counter() - first) / ARGUMENTS.repeats
    used = (time.process_time() - busy) / ARGUMENTS.repeats
    return StepTimes(first - start - mean, mean, used)


def bank_ratios(
    models: RLModels, config: RLConfig, frozen: Frozen, transformer: Any, batch: Any, mesh: Any
) -> str:
    """What a step with a bank takes of one without."""
    key, params = jax.random.key(SEED), (transformer, frozen.vae, frozen.judge)
    kinds = (config, dataclasses.replace(config, references="bank"))
    batches = (batch, batch | {"reference": batch["image"]})
    weights = (frozen, frozen._replace(reference=None))
    steps = [make_rl_step(models, kind, mesh) for kind in kinds]
    states = [first_rl_state(kind, transformer, mesh) for kind in kinds]
    times = np.zeros((1 + ARGUMENTS.repeats, 2, 2))  # repeat, kind, (seconds, of all threads)
    for repeat, one in itertools.product(range(len(times)), (0, 1)):
        start = time.perf_counter(), time.process_time()
        states[one], metrics = steps[one](states[one], weights[one], batches[one], key)
        jax.block_until_ready(metrics)
        times[repeat, one] = time.perf_counter() - start[0], time.process_time() - start[1]
    rollout, bank = np.moveaxis(times[1:], 1, 0)  # the first ones compile
    trips = Assumptions(float(POLICY_STEPS))
    flops = [rl_model_flops(models, kind, params, batch, trips) for kind in kinds]
    each, (share, processor) = np.median(bank, axis=0), np.median(bank / rollout, axis=0)
    return (
        f"{each[0]:.3f} s a step ({each[1]:.3f} s of all threads): in pairs {share:.2f} of the "
        f"time, {processor:.2f} of the processor time; {flops[1] / flops[0]:.2f} of the operations"
    )


def balance_of(variant: str) -> Balance:
    """The balance that a variant names."""
    if variant in ("worst", "floors", "spread"):
        return Balance(weights=variant)
    return Balance(project=variant)


def part_times(
    models: RLModels, config: RLConfig, frozen: Frozen, transformer: Any, batch: Any, mesh: Any
) -> Iterator[tuple[str, float]]:
    """Name and seconds of each part of the step."""
    editor, size = models.editor, (SIDE, SIDE)
    draws = draw(models, jax.random.key(SEED), jnp.int32(0), batch["image"])
    index = jnp.int32(POLICY_STEPS)
    sigmas = jnp.asarray(editor.sigmas(config.num_steps, size))

    def timed(function: Callable[..., Any], *arguments: Any) -> float:
        jitted = mesh_jit(function, mesh)
        return seconds(lambda: jitted(*arguments))

    encode = mesh_jit(editor.encode_condition, mesh)
    condition = encode(frozen.vae, batch["image"], batch["mask"])
    yield "encode condition", seconds(lambda: encode(frozen.vae, batch["image"], batch["mask"]))

    def denoise(weights: Any, stop: Any) -> Any:
        return editor.denoise(
            weights,
            draws.reference_noise,
            condition,
            *embeds_of(batch),
            sigmas,
            0,
            stop,
            true_cfg_scale=config.reference_true_cfg_scale,
        )

    yield "reference rollout", timed(denoise, frozen.reference, jnp.int32(REFERENCE_STEPS))
    yield "policy rollout", timed(denoise, transformer, index)

    def roll(weights: Any) -> Any:
        return roll_out(models, config, weights, weights, frozen.vae, batch, draws, index)

    rollout = mesh_jit(roll, mesh)(transformer)
    image = rollout.reference_image
    decode = timed(lambda vae, x: editor.decode(vae, x, size), frozen.vae, rollout.latents)
    yield "decode x_ref", decode
    predict = timed(
        lambda weights: predict_image(models, config, weights, frozen.vae, batch, rollout),
        transformer,
    )
    yield "predict and decode x_theta", predict
    judge = timed(
        lambda weights: judge_images(models, weights, image, image, image, batch), frozen.judge
    )
    yield "judge", judge

    def loss(weights: Any) -> Any:
        shares = target_shares(batch["has_target"])
        judged = judge_prediction(models, config, weights, frozen, batch, draws, rollout, shares)
        return jnp.mean(judged.loss)

    yield "backward", timed(jax.value_and_grad(loss), transformer) - predict - judge
    optimizer = make_optimizer(config.optimizer)
    state = first_rl_state(config, transformer, mesh)
    yield (
        "optimiser",
        timed(
            lambda state: apply_gradients(
                state, jnp.float32(1.0), state.params, optimizer, {}, config.ema_decay
            ),
            state,
        ),
    )


def main() -> None:
    """Prints sizes, times and shares."""
    set_cpu_threads()
    models, queries = make_models()
    mesh = make_mesh(-1, 1, 1)
    config = RLConfig(
        num_steps=REFERENCE_STEPS,
        t1=POLICY_STEPS,
        t2=POLICY_STEPS,
        optimizer=OptimizerConfig(learning_rate=1e-5),
    )
    params = init_editor(models.editor, jax.random.key(SEED), mesh)
    other = init_editor(models.editor, jax.random.key(1), mesh)
    judge = mesh_jit(lambda key: nn.meta.unbox(init_params(models.scorer.model, key)), mesh)(
        jax.random.key(SEED)
    )
    frozen = Frozen(other.transformer, params.vae, judge)
    card = jax.devices()[0].device_kind
    print(
        f"{os.cpu_count()} CPU cores, {jax.device_count()} x {card}, batch {BATCH}, {SIDE}x{SIDE}"
    )
    for name, tree in (("policy", params.transformer), ("vae", params.vae), ("judge", judge)):
        print(f"{name:7}{sum(leaf.size for leaf in jax.tree.leaves(tree)) / 1e6:6.2f} M parameters")
    for dimensions in ARGUMENTS.dimensions:
        batch = shard_batch(make_batch(queries, dimensions), mesh)
        arguments = (models, config, frozen, params.transformer, batch, mesh)
        found = step_times(*arguments)
        print(f"\n{dimensions} dimension(s): {in_words(found)}", flush=True)
        for name, part in part_times(*arguments) if ARGUMENTS.parts else ():
            print(f"  {name:28}{part:8.3f} s  {part / found.step:6.1%}", flush=True)
        if ARGUMENTS.bank:
            print(f"  with a bank {bank_ratios(*arguments)}", flush=True)
        for variant in ARGUMENTS.variants:
            measure, changed = conflict_times, config
            if variant != "conflicts":
                measure, changed = (
                    step_times,
                    dataclasses.replace(config, balance=balance_of(variant)),
                )
            other = measure(models, changed, *arguments[2:])
            share = other.processor / found.processor
            print(f"  {variant:12}{in_words(other)}; {share:.2f} of the processor time", flush=True)


def in_words(times: StepTimes) -> str:
    """One line."""
    return (
        f"{times.step:.3f} s a step ({times.processor:.3f} s of all threads), "
        f"compiled in {times.compiling:.1f} s"
    )


if __name__ == "__main__":
    main()
