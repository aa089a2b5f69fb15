"""The experiment that is measured, its models, and random arrays made on the device.

`configs/flux_fill_dev_lora.py` with one sample per step on one device. `tiny` replaces the models
by those of the mini world, to run the same code on a CPU.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import FrozenConfigDict

from onereward_jax.common.config_files import load_config
from onereward_jax.parallel import make_mesh
from onereward_jax.parallel.peak_flops import peak_flops
from onereward_jax.policy import read_policy
from onereward_jax.reward.judge_loader import read_scorer
from onereward_jax.stages.reward_settings import query_template
from onereward_jax.stages.rl_settings import editor_options, judge_options
from onereward_jax.train_compile.programs import editor_folder, judge_folder, largest_size
from onereward_jax.training.rl_config import RLModels

CONFIG = "configs/flux_fill_dev_lora.py"
ROLLOUT = 35
"""Steps of the policy's rollout, fixed so that steps are comparable: about the mean of 30 to 39."""


def experiment(tiny: bool) -> Any:
    """The config, for batches of one sample."""
    config = load_config(CONFIG)
    config.mesh.update(data=1, fsdp=1, tensor=1)
    config.rl.update(batch_size=1, t1=ROLLOUT, t2=ROLLOUT)
    config.reward.batch_size = config.candidates.batch_size = 1
    if tiny:
        config.models.update(editor="mini/models/editor", judge="mini/models/judge")
        config.data.image_size, config.embed.max_length = 64, 12
        config.rl.update(num_steps=4, t1=3, t2=3)
        config.rl.lora.rank, config.reward.suffix_length = 4, 64
    return config


def one_device() -> Mesh:
    """A mesh of the first device."""
    return make_mesh(1, 1, 1, devices=jax.devices()[:1])


def rl_models(config: Any) -> RLModels:
    """Editor and judge of the stage `rl`, without weights."""
    config = FrozenConfigDict(config)
    return RLModels(
        read_policy(editor_folder(config), **editor_options(config)),
        read_scorer(
            judge_folder(config),
            largest_size(config),
            template=query_template(config),
            **judge_options(config),
        ),
    )


def random_arrays(abstract: Any, packed_length: int) -> Any:
    """Arrays of these shapes, in one call on the device.

    Weights are uniform with standard deviation 1/sqrt(inputs), so that activations and gradients
    are of ordinary sizes everywhere: time and power depend on the numbers that are multiplied.
    Moments and counters are zero.

    Args:
      abstract: pytree of `jax.ShapeDtypeStruct`, as in a job of `train_compile`.
      packed_length: of the judge's queries; all questions together fill it.
    """
    leaves, tree = jax.tree_util.tree_flatten_with_path(abstract)

    def make() -> list[Any]:
        return [
            _leaf(jax.tree_util.keystr(path), leaf, seed, packed_length)
            for seed, (path, leaf) in enumerate(leaves)
        ]

    shardings = [getattr(leaf, "sharding", None) for _, leaf in leaves]
    made = jax.block_until_ready(jax.jit(make, out_shardings=shardings)())
    return tree.unflatten(made)


def _leaf(path: str, leaf: Any, seed: int, packed_length: int) -> Any:
    shape, dtype = leaf.shape, leaf.dtype
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return jax.random.key(0)
    if "opt_state" in path:
        return jnp.zeros(shape, dtype)
    if dtype == jnp.bool_:
        length = packed_length // shape[-2] if "suffix_mask" in path else shape[-1]
        return jnp.broadcast_to(jnp.arange(shape[-1]) < length, shape) & ("target" not in path)
    if jnp.issubdtype(dtype, jnp.integer):
        drawn = 250 + 250 * _uniform(shape, seed)
        return (drawn if "prefix" in path or "suffix" in path else jnp.zeros(shape)).astype(dtype)
    if path.endswith("['bias']"):
        return jnp.zeros(shape, dtype)
    if len(shape) < 2 or path.endswith(("['scale']", "['weight']", "['mask']")):
        return jnp.ones(shape, dtype)
    spread = 1.0
    if not any(name in path for name in ("image", "target", "embeds")):
        inputs = math.prod(shape[:-1]) if len(shape) == 4 else shape[-2]
        spread = math.sqrt(3 / inputs)
    if "lora_b" in path or "conv_out" in path:
        spread /= 10  # an adapter changes little, and pictures stay in [-1, 1]
    return (spread * _uniform(shape, seed)).astype(dtype)


def _uniform(shape: tuple[int, ...], seed: int) -> Any:
    """Numbers in [-1, 1) by hashing the indices: fused, so that it needs no other memory."""
    mixed = jnp.full(shape, seed * 2654435769 % 2**32, jnp.uint32)
    for axis in range(len(shape)):
        index = jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
        mixed = (mixed ^ index) * jnp.uint32(2146121005)
        mixed = (mixed ^ (mixed >> 15)) * jnp.uint32(2221713035)
        mixed = mixed ^ (mixed >> 16)
    return mixed.astype(jnp.float32) * 2.0**-31 - 1.0


def compile_timed(lowered: Any) -> tuple[Any, float]:
    """The compiled function, and the seconds of compiling it."""
    start = time.perf_counter()
    compiled = lowered.compile()
    return compiled, time.perf_counter() - start


def median_seconds(function: Callable[[], Any], repeats: int) -> float:
    """Median seconds of a call that waits for the device, after one that is not counted."""
    jax.block_until_ready(function())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def memory_in_use() -> dict[str, int]:
    """Bytes that the allocator of the first device has in use, had at most, and may use."""
    stats = jax.devices()[0].memory_stats() or {}
    names = ("bytes_in_use", "peak_bytes_in_use", "bytes_limit")
    return {name: stats[name] for name in names if name in stats}


def share_of_peak(flops: float, seconds: float, mesh: Mesh) -> float | None:
    """FLOP/s as a share of the device's peak in bfloat16; None if the device is unknown."""
    peak = peak_flops(mesh)
    return None if peak is None else flops / seconds / peak


def versions() -> dict[str, Any]:
    """Device and versions, for the first line of a part."""
    import os

    import flax

    return {
        "card": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "flax": flax.__version__,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }
