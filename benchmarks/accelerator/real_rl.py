"""The step of the stage `rl` at the published models' sizes, on one device with random weights.

    python benchmarks/accelerator/real_rl.py --out=results

Compiles the program that `train_compile` compiles, then runs it: compile time, planned and actual
peak memory, seconds per step, MFU.
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
from onereward_jax.training.metrics import scalars

MOST_STEPS = 3


def main() -> None:
    """Writes the lines of the part."""
    results = Results("real_rl", __doc__)
    config, mesh = experiment(results.tiny), one_device()
    results.add("start", **versions())
    job = make_program(config, "rl", mesh)
    start = time.perf_counter()
    traced = job.function.trace(*job.arguments)
    lowered = traced.lower()
    tracing = time.perf_counter() - start
    flops = count_flops(traced.jaxpr.jaxpr, job.assumptions)
    step, compiling = compile_timed(lowered)
    results.add(
        "compiled",
        trace_seconds=tracing,
        compile_seconds=compiling,
        planned=dataclasses.asdict(memory_of(step)),
        flops=flops,
        model_flops=job.model_flops,
        **memory_in_use(),
    )
    start = time.perf_counter()
    packed_length = rl_models(config).scorer.layout.packed_length
    state, *others = random_arrays(job.arguments, packed_length)
    results.add("arrays", seconds=time.perf_counter() - start, **memory_in_use())
    model_flops = job.model_flops
    del job, traced, lowered
    for number in range(MOST_STEPS):
        start = time.perf_counter()
        state, metrics = step(state, *others)
        jax.block_until_ready((state, metrics))
        seconds = time.perf_counter() - start
        found = scalars(metrics)
        results.add(
            "step",
            number=number,
            seconds=seconds,
            num_steps=config.rl.num_steps,
            rollout=config.rl.t1,
            mfu=share_of_peak(model_flops, seconds, mesh),
            flops_share=share_of_peak(flops, seconds, mesh),
            metrics={name: found[name] for name in found if "/" not in name},
            **memory_in_use(),
        )
        if number and results.left() < 1.2 * seconds:
            break
    results.add("complete")


if __name__ == "__main__":
    main()
