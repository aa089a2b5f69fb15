"""The step of the stage `reward` with an adapter at the judge's published size, on one device.

    python benchmarks/accelerator/real_judge.py --out=results

Qwen2.5-VL-7B with random weights in bfloat16 and an adapter of rank 64, one pair in both orders.
"""

from __future__ import annotations

import dataclasses
import time

import jax
from real_sizes import (
    compile_timed,
    experiment,
    memory_in_use,
    one_device,
    random_arrays,
    rl_models,
    share_of_peak,
    versions,
)
from results import Results

from onereward_jax.train_compile.device_memory import memory_of
from onereward_jax.train_compile.programs import make_program
from onereward_jax.training.count_jaxpr_flops import count_flops

STEPS, RANK = 6, 64


def main() -> None:
    """Writes the lines of the part."""
    results = Results("real_judge", __doc__)
    config, mesh = experiment(results.tiny), one_device()
    config.reward.lora.update(rank=4 if results.tiny else RANK, alpha=float(RANK))
    results.add("start", **versions())
    job = make_program(config, "reward", mesh)
    traced = job.function.trace(*job.arguments)
    flops = count_flops(traced.jaxpr.jaxpr, job.assumptions)
    step, compiling = compile_timed(traced.lower())
    results.add(
        "compiled",
        compile_seconds=compiling,
        planned=dataclasses.asdict(memory_of(step)),
        flops=flops,
        model_flops=job.model_flops,
    )
    packed_length = rl_models(config).scorer.layout.packed_length
    state, *others = random_arrays(job.arguments, packed_length)
    for number in range(STEPS):
        start = time.perf_counter()
        state, metrics = step(state, *others)
        jax.block_until_ready((state, metrics))
        seconds = time.perf_counter() - start
        results.add(
            "step",
            number=number,
            seconds=seconds,
            mfu=share_of_peak(job.model_flops, seconds, mesh),
            flops_share=share_of_peak(flops, seconds, mesh),
            **memory_in_use(),
        )
    results.add("complete")


if __name__ == "__main__":
    main()
