"""How much overlapping host and device work saves in the stage `candidates`, in seconds per batch.

    python benchmarks/candidates_scale.py [--processes 1 2] [--size 1024] [--batches 4]
    python benchmarks/candidates_scale.py --editor flux --blocks 19 38 --processes 1 --steps 2

The photographs of `data_scale.py`, written as by the stage `data`, are edited by an editor with
random weights: a small one for a few cores, or FLUX.1-Fill with as many blocks as fit. Prompt
embeddings have T5-XXL's size (4 MB each). Pictures are saved as in the stage; with random weights
they are noise, the slowest case for PNG. Every triplet is used once, so every picture is read.

Each round first runs sequentially, timing every step and waiting for the devices, then overlapped
as the stage does. The medians over the rounds are printed. Several processes, connected by gloo,
share the machine and split the batch. On CPU, the devices compute on the same cores that read and
write: overlap then hides only disk waits, and its overhead is visible.

Measured on an H100 with 16 cores, full FLUX.1-Fill (19 + 38 blocks, bfloat16), 3 batches of 4
pictures of 1024 x 1024 and 2 steps: device 2.29 s a batch; host 1.84 s on one thread (reading 0.04,
placing 0.06, encoding and writing 1.75). Sequential 4.13 s, overlapped 2.55 s. With 2 + 4 blocks
and 1 step, so that the host dominates: device 0.29 s, host 1.83 s; sequential 2.12 s, overlapped
0.48 s.

Measured on two cores with other work running, `small`, batches of 4 pictures of 512 x 512: with one
process device 5.42 s, host 1.46 s, sequential 6.89 s and overlapped 6.35 s; with two, each with
half of the batch, 5.28 s, 1.23 s and 1.47 s, 6.66 s and 5.05 s.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import numpy as np

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument(
    "--processes", type=int, nargs="+", default=[1, 2], help="how many, one run each"
)
parser.add_argument("--size", type=int, default=1024, help="side of the pictures in pixels")
parser.add_argument("--batch", type=int, default=4, help="pictures, over all processes")
parser.add_argument("--batches", type=int, default=4, help="timed batches, after one that compiles")
parser.add_argument("--rounds", type=int, default=3, help="rounds; medians are printed")
parser.add_argument("--steps", type=int, default=1, help="sampling steps, two forwards each")
parser.add_argument("--editor", choices=("small", "flux"), default="small")
parser.add_argument("--blocks", type=int, nargs=2, default=(1, 1), help="double and single")
parser.add_argument("--prepare", type=pathlib.Path, help=argparse.SUPPRESS)
parser.add_argument("--measure", type=pathlib.Path, help=argparse.SUPPRESS)
ARGUMENTS = parser.parse_args()

TEXT_LENGTH, TEXT_WIDTH, POOLED_WIDTH = 512, 4096, 768
SMALL_VAE = dict(
    block_out_channels=(8, 8, 16, 16),
    layers_per_block=1,
    norm_num_groups=4,
    mid_block_add_attention=False,
)
SMALL_FLUX = dict(attention_head_dim=16, num_attention_heads=2, axes_dims_rope=(4, 6, 6))


def wanted_triplets() -> int:
    """One per picture of the timed batches and of the batch that compiles."""
    return ARGUMENTS.batch * (ARGUMENTS.batches + 1)


def prepare(folder: pathlib.Path) -> None:
    """Writes triplets and embeddings, as the stages `data` and `embed` do."""
    import ml_dtypes
    from data_scale import make_folder

    from onereward_jax.data.folder_source import FolderSource
    from onereward_jax.data.shard_writer import write_triplets
    from onereward_jax.data.triplets import Triplets
    from onereward_jax.policy import PromptEmbeds, add_to_text_cache

    # every tenth photograph goes to the test split
    count = 10 * wanted_triplets() // 9 + 2
    make_folder(folder / "photos", count, (5 * ARGUMENTS.size // 4, ARGUMENTS.size))
    write_triplets(folder / "data", FolderSource(folder / "photos", ARGUMENTS.size))
    rng = np.random.default_rng(0)
    for prompt in ["", *Triplets(folder / "data", "train").column("prompt")]:
        embeds = PromptEmbeds(
            rng.standard_normal((1, TEXT_LENGTH, TEXT_WIDTH)).astype(ml_dtypes.bfloat16),
            rng.standard_normal((1, POOLED_WIDTH)).astype(ml_dtypes.bfloat16),
        )
        add_to_text_cache(folder / "prompts", [([prompt], embeds)])


def make_editor(mesh):
    """The editor, and its random weights on the devices."""
    import jax
    import jax.numpy as jnp

    from onereward_jax.models.flux import FluxConfig, FluxTransformer
    from onereward_jax.models.vae import AutoencoderKL, VaeConfig
    from onereward_jax.policy import FillPolicy, NoiseSchedule
    from onereward_jax.policy.policy_loader import init_params

    small = ARGUMENTS.editor == "small"
    kind = {"dtype": jnp.float32 if small else jnp.bfloat16}
    kind["param_dtype"] = kind["dtype"]
    flux = FluxConfig(
        in_channels=384,
        out_channels=64,
        num_layers=ARGUMENTS.blocks[0],
        num_single_layers=ARGUMENTS.blocks[1],
        guidance_embeds=True,
        **(SMALL_FLUX if small else {}),
    )
    vae = VaeConfig(**(SMALL_VAE if small else {}))
    editor = FillPolicy(
        FluxTransformer(flux, **kind), AutoencoderKL(vae, **kind), NoiseSchedule(), paste_back=True
    )
    return editor, init_params(editor, jax.random.key(0), mesh)


class Clock:
    """Seconds by name, and replacements that run the stage's functions sequentially.

    Attributes:
      seconds: by name, summed over the sequential run.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = collections.defaultdict(float)
        self.serial = True

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Adds the time of a block."""
        start = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - start

    def one_after_the_other(self, batches, read, compute, write) -> Iterator[list]:
        """Replaces `overlapped`."""
        for number, items in enumerate(batches):
            with self.timed("reading"):
                found = [read(item) for item in items]
            with self.timed("computing"):
                made = list(compute(number, found))
            with self.timed("saving"):
                written = [write(one) for one in made]
            yield written

    def waited_for(self, make):
        """Replaces `make_generate`: its functions wait for the devices in the sequential run."""
        import jax

        def make_waiting(*args, **options):
            function = make(*args, **options)

            def call(*inputs):
                if not self.serial:
                    return function(*inputs)
                jax.block_until_ready(inputs)
                with self.timed("device"):
                    return jax.block_until_ready(function(*inputs))

            return call

        return make_waiting


def measure(folder: pathlib.Path) -> None:
    """Runs on every process; process 0 prints."""
    from onereward_jax.parallel import barrier, distributed, make_mesh

    if "JAX_PROCESS_ID" in os.environ:
        distributed.initialize(distributed.find_cluster_config())
    import jax

    from onereward_jax.annotation import Candidate
    from onereward_jax.data.triplets import Triplets
    from onereward_jax.policy import open_text_cache
    from onereward_jax.stages import edit_batches as machinery
    from onereward_jax.stages.candidates import save_candidate
    from onereward_jax.stages.edit_batches import Edit, PictureMaker
    from onereward_jax.stages.io_pipeline import overlapped

    mesh = make_mesh(data=jax.device_count(), fsdp=1)
    editor, params = make_editor(mesh)
    triplets, cache = Triplets(folder / "data", "train"), open_text_cache(folder / "prompts")
    clock = Clock()
    machinery.make_generate = clock.waited_for(machinery.make_generate)
    maker = PictureMaker(editor, mesh, cache, ARGUMENTS.batch, ARGUMENTS.steps)
    settings = dict(
        num_steps=ARGUMENTS.steps, guidance_scale=4.0, true_cfg_scale=3.0, negative_prompt=""
    )
    edits = [Edit(triplets, row, noise_seed=row, **settings) for row in range(wanted_triplets())]
    drawn = Candidate("", 0, "", ARGUMENTS.steps, 4.0, 3.0, "", 1.0, 0)

    def save(number, source, pixels):
        picture = f"pictures/{clock.serial}/{number}.png"
        return save_candidate(folder, dataclasses.replace(drawn, picture=picture), source, pixels)

    def run(part) -> float:
        barrier("the start", seconds=None)
        start = time.perf_counter()
        for _ in maker.make(params, part, save):
            pass
        barrier("the end of a run", seconds=None)
        return (time.perf_counter() - start) / (len(part) / ARGUMENTS.batch)

    first, rest = edits[: ARGUMENTS.batch], edits[ARGUMENTS.batch :]
    machinery.overlapped = clock.one_after_the_other
    run(first)  # compiles
    rounds = []
    for _ in range(ARGUMENTS.rounds):  # alternating, so that other load affects both alike
        clock.seconds.clear()
        clock.serial, machinery.overlapped = True, clock.one_after_the_other
        before = run(rest)
        mean = {name: value / ARGUMENTS.batches for name, value in clock.seconds.items()}
        mean["placing"] = mean["computing"] - mean["device"]
        clock.serial, machinery.overlapped = False, overlapped
        rounds.append(mean | {"before": before, "after": run(rest)})
    median = {name: float(np.median([one[name] for one in rounds])) for name in rounds[0]}
    figures = [json.loads(text) for text in distributed.gather_on_writer(json.dumps(median))]
    if distributed.is_writer():
        print_figures(figures)
    barrier("the end", seconds=None)


def print_figures(processes: list[dict[str, float]]) -> None:
    """Prints the figures of all processes."""
    import jax

    device, before, after = jax.devices()[0], processes[0]["before"], processes[0]["after"]
    print(
        f"\n{len(processes)} process(es), {jax.device_count()} x {device.device_kind}, "
        f"{os.cpu_count()} cores: batches of {ARGUMENTS.batch} pictures of {ARGUMENTS.size} x "
        f"{ARGUMENTS.size}, {ARGUMENTS.steps} step(s) of the editor {ARGUMENTS.editor!r} with "
        f"{ARGUMENTS.blocks[0]} + {ARGUMENTS.blocks[1]} blocks"
    )
    for index, mean in enumerate(processes):
        host = mean["reading"] + mean["placing"] + mean["saving"]
        print(
            f"  process {index}, seconds a batch: device {mean['device']:.2f}; host {host:.2f} "
            f"(reading {mean['reading']:.2f}, placing {mean['placing']:.2f}, encoding and writing "
            f"{mean['saving']:.2f})"
        )
    alone = max(mean["device"] for mean in processes)
    print(
        f"  wall-clock seconds a batch: sequential {before:.2f}, overlapped {after:.2f} (including "
        f"the first read and the last write), devices alone {alone:.2f}",
        flush=True,
    )


def start(what: str, folder: str, **variables: str) -> subprocess.Popen:
    """Starts this program as another process with its own JAX devices."""
    command = [sys.executable, *sys.argv, f"--{what}={folder}"]
    return subprocess.Popen(command, env=os.environ | variables)


def main() -> None:
    """Prepares the data, then measures with each number of processes."""
    if ARGUMENTS.prepare:
        return prepare(ARGUMENTS.prepare)
    if ARGUMENTS.measure:
        return measure(ARGUMENTS.measure)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends the child processes
    with tempfile.TemporaryDirectory() as folder:
        if code := start("prepare", folder, JAX_PLATFORMS="cpu").wait():
            sys.exit(code)
        for count in ARGUMENTS.processes:
            with socket.socket() as free:
                free.bind(("localhost", 0))
                address = f"localhost:{free.getsockname()[1]}"
            shared = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(count)}
            started = [
                start(
                    "measure",
                    folder,
                    **(shared | {"JAX_PROCESS_ID": str(index)} if count > 1 else {}),
                )
                for index in range(count)
            ]
            try:
                codes = [process.wait() for process in started]
            finally:  # the children handle SIGTERM differently
                for process in started:
                    process.kill()
            if any(codes):
                sys.exit(f"error: exit codes {codes} of {count} process(es)")


if __name__ == "__main__":
    main()
