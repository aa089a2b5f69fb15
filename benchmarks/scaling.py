"""How the cost grows with pictures, text, batch, dimensions, candidates and pairs.

    python benchmarks/scaling.py                    # operations at the published sizes, and seconds
    python benchmarks/scaling.py --only operations  # or: seconds

Operations are counted in the traced programs of FLUX.1-Fill-dev and Qwen2.5-VL-7B (no weights, no
allocation): single passes, and whole steps with rematerialisation. Seconds are measured with the
mini models on this machine. A row is a power fitted to cost over size, by least squares of the
logarithms, and the highest power that the maths allows: attention goes with the square of the
tokens, everything else is linear. Exits with an error that names the rows above it. Operations took
18 minutes on a core that other programs used too.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from onereward_jax.common.config_files import load_config
from onereward_jax.convert.hub import PACKAGE
from onereward_jax.models.attention import attention
from onereward_jax.parallel import make_mesh
from onereward_jax.policy import Condition, PromptEmbeds, read_policy
from onereward_jax.policy.policy_loader import abstract_params
from onereward_jax.reward.judge_loader import abstract_reward_params, read_scorer
from onereward_jax.train_compile.programs import PUBLISHED, make_program
from onereward_jax.training.abstract_batches import abstract_questions
from onereward_jax.training.count_jaxpr_flops import Assumptions, count_flops, function_flops
from onereward_jax.training.model_flops import full_attention_share

MINI = PACKAGE / "mini" / "models"
COUNTED, MEASURED = 0.01, 0.15
"""How far an exponent may be above the allowed one: rounding, and the noise of a machine."""

REPEATS = 5
Shape = jax.ShapeDtypeStruct


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Cost against size.

    Attributes:
      what: whose cost.
      size: name of the size.
      allowed: the exponent that the maths allows.
      costs: size -> cost.
    """

    what: str
    size: str
    allowed: float
    costs: Mapping[float, float]

    @property
    def exponent(self) -> float:
        """p of cost = c size^p, by least squares of the logarithms."""
        return float(np.polyfit(*np.log([list(self.costs), list(self.costs.values())]), 1)[0])


@dataclasses.dataclass(frozen=True)
class Program:
    """A function and the shapes of its arguments.

    Attributes:
      function, arguments: as said.
      assumptions: for the count.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    assumptions: Assumptions = Assumptions()

    def operations(self) -> float:
        """FLOPs, as traced."""
        return function_flops(self.function, *self.arguments, assumptions=self.assumptions)

    def seconds(self) -> float:
        """Shortest of `REPEATS` calls, with random arguments."""
        arguments = jax.tree.map(_filled, self.arguments)
        run = jax.jit(self.function)
        jax.block_until_ready(run(*arguments))
        times = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            jax.block_until_ready(run(*arguments))
            times.append(time.perf_counter() - start)
        return min(times)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("operations", "seconds"))
    given = parser.parse_args()
    failed = []
    if given.only != "seconds":
        editor, judge = PUBLISHED / "FLUX.1-Fill-dev", PUBLISHED / "Qwen2.5-VL-7B-Instruct"
        rows = itertools.chain(pass_operations(Passes(editor, judge)), step_operations())
        failed += report("TFLOP", 1e12, rows, COUNTED)
    if given.only != "operations":
        failed += report(
            "ms", 1e-3, pass_seconds(Passes(MINI / "editor", MINI / "judge")), MEASURED
        )
    if failed:
        sys.exit("\n".join(failed))


def report(unit: str, scale: float, sweeps: Iterable[Sweep], slack: float) -> list[str]:
    """Prints a row per sweep as it comes; returns a sentence for each that grows too fast."""
    print(f"| cost | over | from | to | {unit} from | to | power | allowed |\n|" + "---|" * 8)
    failed = []
    for one in sweeps:
        sizes, costs = zip(*sorted((size, cost / scale) for size, cost in one.costs.items()))
        print(
            f"| {one.what} | {one.size} | {sizes[0]:,} | {sizes[-1]:,} | {_short(costs[0])} | "
            f"{_short(costs[-1])} | {one.exponent:.2f} | {one.allowed:g} |",
            flush=True,
        )
        if one.exponent > one.allowed + slack:
            failed.append(
                f"{one.what} grows with the power {one.exponent:.2f} of the {one.size}, "
                f"{one.allowed:g} at most expected"
            )
    return failed


class Passes:
    """Single passes of an editor and a judge, by size."""

    def __init__(self, editor: Path, judge: Path) -> None:
        """Reads the config files of both folders."""
        self.mesh = make_mesh(1, 1, 1, devices=jax.devices()[:1])
        self.editor, self.judge = read_policy(editor), judge
        self.params = jax.tree.map(_bare, abstract_params(self.editor, self.mesh))

    def tokens(self, side: int) -> int:
        """Picture tokens of a square."""
        return self.editor.token_count((side, side))

    def velocity(self, side: int, text: int, batch: int) -> Program:
        """A forward pass of the transformer."""
        config, tokens = self.editor.transformer.config, self.tokens(side)
        condition = config.in_channels - self.editor.latent_channels
        embeds = PromptEmbeds(
            Shape((batch, text, config.joint_attention_dim), jnp.float32),
            Shape((batch, config.pooled_projection_dim), jnp.float32),
        )
        arguments = (
            self.params.transformer,
            Shape((batch, tokens, self.editor.latent_channels), jnp.float32),
            Shape((batch, tokens, condition), jnp.float32),
            Shape((tokens, 3), jnp.float32),
            embeds,
        )
        return Program(self._velocity, arguments)

    def attention(self, side: int, text: int, batch: int) -> Program:
        """Attention of all its blocks, without projections."""
        config = self.editor.transformer.config
        heads = (config.num_attention_heads, config.attention_head_dim)
        one = Shape((batch, self.tokens(side) + text, *heads), jnp.float32)
        blocks = config.num_layers + config.num_single_layers

        def all_blocks(q: Any, k: Any, v: Any) -> Any:
            return jax.lax.fori_loop(0, blocks, lambda _, mixed: attention(mixed, k, v), q)

        return Program(all_blocks, (one, one, one))

    def decode(self, side: int, batch: int) -> Program:
        """A pass of the VAE's decoder."""
        latents = Shape((batch, self.tokens(side), self.editor.latent_channels), jnp.float32)
        decode = functools.partial(self.editor.decode, size=(side, side))
        return Program(decode, (self.params.vae, latents))

    def score(self, side: int, batch: int, dimensions: int) -> Program:
        """The judge's answers about a pair of pictures in so many dimensions."""
        scorer = read_scorer(self.judge, (side, side))
        images, queries = abstract_questions(
            scorer.layout, batch, (side, side), self.mesh, scorer.view
        )
        queries = queries._replace(
            **{
                name: Shape((batch, dimensions, *array.shape[2:]), array.dtype)
                for name, array in queries._asdict().items()
                if name.startswith("suffix")
            }
        )
        params = abstract_reward_params(scorer, self.mesh)
        arguments = jax.tree.map(_bare, (params, images, images, queries))
        return Program(
            scorer.score, arguments, Assumptions(true_share=full_attention_share(scorer))
        )

    def _velocity(self, params: Any, latents: Any, tokens: Any, ids: Any, embeds: Any) -> Any:
        return self.editor.velocity(params, latents, Condition(tokens, ids), embeds, 0.5, 1.0)


def pass_operations(passes: Passes) -> Iterable[Sweep]:
    """Of FLUX's forward pass and its two parts, of the decoder, and of the judge."""

    @functools.cache
    def parts(side: int, text: int, batch: int) -> tuple[float, float]:
        whole = passes.velocity(side, text, batch).operations()
        return whole, passes.attention(side, text, batch).operations()

    sides, texts, batches = (512, 768, 1024, 1536, 2048), (64, 128, 256, 512), (1, 2, 4, 8)
    axes = {
        "picture tokens": {passes.tokens(side): (side, 512, 1) for side in sides},
        "text tokens": {text: (1024, text, 1) for text in texts},
        "batch": {batch: (1024, 512, batch) for batch in batches},
    }
    for size, points in axes.items():
        found = {one: parts(*point) for one, point in points.items()}
        square = 1 if size == "batch" else 2
        yield Sweep("FLUX", size, square, {one: whole for one, (whole, _) in found.items()})
        yield Sweep("its attention", size, square, {one: part for one, (_, part) in found.items()})
        rest = {one: whole - part for one, (whole, part) in found.items()}
        yield Sweep("its linear layers", size, 1, rest)
    costs = {side**2: passes.decode(side, 1).operations() for side in sides}
    yield Sweep("decoder", "pixels", 2, costs)
    costs = {side**2: passes.score(side, 1, 1).operations() for side in sides[:3]}
    yield Sweep("judge", "pixels", 2, costs)
    costs = {count: passes.score(1024, 1, count).operations() for count in (1, 2, 3, 4)}
    yield Sweep("judge", "dimensions", 1, costs)


def step_operations() -> Iterable[Sweep]:
    """Of whole programs, as their stages run them."""

    @functools.cache
    def cost(file: str, stage: str, **fields: Any) -> float:
        config = load_config(f"configs/{file}.py")
        config.mesh.update(data=1, fsdp=1, tensor=1)
        config[stage].batch_size = 1
        config.update_from_flattened_dict({k.replace("__", "."): v for k, v in fields.items()})
        mesh = make_mesh(1, 1, 1, devices=jax.devices()[:1])
        job = make_program(config, stage, mesh)
        jaxpr = job.function.trace(*job.arguments).jaxpr.jaxpr
        return count_flops(jaxpr, job.assumptions)

    def sweep(program: tuple[str, str, str], size: str, allowed: float, points: Any) -> Sweep:
        what, *names = program
        costs = {one: cost(*names, **fields) for one, fields in points.items()}
        return Sweep(what, size, allowed, costs)

    # {}: as in the config, 1024x1024 pixels, 512 text tokens, 40 steps
    rl = ("step of `rl`", "flux_fill_dev", "rl")
    reward = ("step of `reward`", "qwen2_5_vl_7b_reward", "reward")
    candidates = ("batch of `candidates`", "flux_fill_dev", "candidates")
    pixels = {side**2: {"data__image_size": side} for side in (512, 2048)} | {1024**2: {}}
    steps = {20: {"rl__num_steps": 20, "rl__t1": 10, "rl__t2": 19}, 40: {}}
    yield sweep(rl, "pixels", 2, pixels)
    yield sweep(rl, "text tokens", 2, {128: {"embed__max_length": 128}, 512: {}})
    yield sweep(rl, "batch", 1, {1: {}, 8: {"rl__batch_size": 8}})
    yield sweep(rl, "sampling steps", 1, steps)
    yield sweep(candidates, "pixels", 2, pixels)
    yield sweep(candidates, "candidates", 1, {1: {}, 8: {"candidates__batch_size": 8}})
    yield sweep(reward, "pairs", 1, {1: {}, 8: {"reward__batch_size": 8}})


def pass_seconds(passes: Passes) -> Iterable[Sweep]:
    """Of the mini models."""
    sides, batches = (64, 96, 128, 192), (4, 8, 16, 32)
    costs = {passes.tokens(side): passes.velocity(side, 12, 4).seconds() for side in sides}
    yield Sweep("editor", "picture tokens", 2, costs)
    costs = {batch: passes.velocity(64, 12, batch).seconds() for batch in batches}
    yield Sweep("editor", "batch", 1, costs)
    costs = {side**2: passes.decode(side, 4).seconds() for side in sides}
    yield Sweep("decoder", "pixels", 2, costs)
    costs = {batch: passes.score(64, batch, 1).seconds() for batch in batches}
    yield Sweep("judge", "pairs", 1, costs)
    costs = {count: passes.score(64, 8, count).seconds() for count in (1, 2, 3, 4)}
    yield Sweep("judge", "dimensions", 1, costs)


def _short(cost: float) -> str:
    return f"{cost:,.0f}" if cost >= 1000 else f"{cost:.4g}"


def _bare(leaf: Any) -> Shape:
    return Shape(leaf.shape, leaf.dtype)


def _filled(leaf: Shape) -> jax.Array:
    """Small random numbers, 0 for token ids, or True."""
    if jnp.issubdtype(leaf.dtype, jnp.floating):
        made = np.random.default_rng(0).normal(scale=0.02, size=leaf.shape)
        return jnp.asarray(made, leaf.dtype)
    return jnp.full(leaf.shape, leaf.dtype == jnp.bool_, leaf.dtype)


if __name__ == "__main__":
    main()
