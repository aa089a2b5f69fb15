"""Edits of held-out triplets by the compared editors, saved as PNG so that each is made once."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import UInt8
from PIL import Image

from onereward_jax.chain.stage import StageContext
from onereward_jax.common.atomic_file import atomic_file
from onereward_jax.common.rng import generator
from onereward_jax.convert import VAE, load_params
from onereward_jax.data.triplets import Triplets
from onereward_jax.parallel import is_writer
from onereward_jax.parallel.distributed import is_multiprocess
from onereward_jax.parallel.preemption import stop_points
from onereward_jax.parallel.progress import progress_bar
from onereward_jax.pictures import read_picture
from onereward_jax.policy import PolicyParams, open_text_cache
from onereward_jax.policy.lora_adapters import load_trained
from onereward_jax.policy.policy_loader import abstract_params, read_policy
from onereward_jax.stages.edit_batches import Edit, PictureMaker, Source
from onereward_jax.stages.guidance_settings import evaluate_guidance
from onereward_jax.stages.settings import compute_dtype

PICTURES = "pictures"
"""Folder of the stage with the images of all editors, one folder each."""


@dataclasses.dataclass(frozen=True)
class Pictures:
    """The images of an editor, read on access.

    Attributes:
      folder: folder of the PNGs.
      names: row in the test split -> name of the triplet.
    """

    folder: Path
    names: Mapping[int, str]

    def path(self, row: int) -> Path:
        """Path of a triplet's image."""
        return self.folder / f"{self.names[row]}.png"

    def __getitem__(self, row: int) -> UInt8[np.ndarray, "h w 3"]:
        return np.asarray(read_picture(self.path(row)))

    def missing(self) -> list[int]:
        """The rows without an image on process 0; the same on all processes."""
        absent = np.zeros(len(self.names), bool)
        if is_writer():
            made = {path.name for path in self.folder.glob("*.png")}
            absent[:] = [self.path(row).name not in made for row in self.names]
        if is_multiprocess():
            absent = multihost_utils.broadcast_one_to_all(absent)
        return [row for row, is_absent in zip(self.names, absent) if is_absent]

    def write(self, row: int, pixels: UInt8[np.ndarray, "h w 3"]) -> None:
        """Writes an image, atomically."""
        with atomic_file(self.path(row), sync=True) as draft:
            Image.fromarray(pixels).save(draft)


def make_edits(
    context: StageContext,
    triplets: Triplets,
    rows: Sequence[int],
    others: Sequence[tuple[Pictures, Path]] = (),
) -> tuple[Pictures, Pictures]:
    """The images of base and policy; generates missing ones, from the same noise for all editors.

    Only one editor at a time is loaded, and none if nothing is missing.

    Args:
      context: context of the stage.
      triplets, rows: the triplets to edit.
      others: images of further editors to generate, with the folder of each one's weights.

    Raises:
      Stopped: after a signal; the same command resumes.
    """
    ids = triplets.column("id")
    names = {row: ids[row] for row in rows}
    base, policy = (
        Pictures(context.folder / PICTURES / name, names) for name in ("base", "policy")
    )
    jobs = [
        (base, base.missing(), context.base_transformer()),
        (policy, policy.missing(), context.output("rl") / context.config.evaluate.weights),
        *((pictures, pictures.missing(), weights) for pictures, weights in others),
    ]
    if any(missing for _, missing, _ in jobs):
        _generate(context, triplets, jobs)
    context.share(PICTURES)
    return base, policy


def _generate(
    context: StageContext,
    triplets: Triplets,
    jobs: Sequence[tuple[Pictures, Sequence[int], Path]],
) -> None:
    """Generates the images of each job: (images, missing rows, folder of the transformer)."""
    config, mesh, folder = context.config.evaluate, context.mesh, context.base_model("editor")
    dtype, transformer = compute_dtype(context.config), context.base_transformer()
    editor = read_policy(
        folder,
        transformer=transformer,
        dtype=dtype,
        param_dtype=dtype,  # inference only: no float32 master weights
        paste_back=context.config.models.paste_back,
        solver=context.config.models.solver,
    )
    vae = load_params(folder / "vae", abstract_params(editor, mesh).vae, VAE)
    cache = open_text_cache(context.output("embed") / "prompts")
    guidance, names = evaluate_guidance(context.config), jobs[0][0].names

    def edit(row: int) -> Edit:
        return Edit(
            triplets,
            row,
            num_steps=config.num_steps,
            guidance_scale=guidance.guidance_scale,
            true_cfg_scale=guidance.true_cfg_scale,
            negative_prompt=guidance.negative_prompt,
            noise_seed=int(generator(context.config.seed, "evaluate", names[row]).integers(2**31)),
        )

    maker = PictureMaker(editor, mesh, cache, config.batch_size, config.num_steps)
    todo = sum(len(missing) for _, missing, _ in jobs)
    total = sum(len(pictures.names) for pictures, _, _ in jobs)
    with (
        progress_bar(
            "edits", total, initial=total - todo, unit="picture", program=context.program("edits")
        ) as bar,
        stop_points("evaluate") as stop,
    ):
        for pictures, missing, weights in jobs:
            if not missing:
                continue
            trained = load_trained(weights, transformer, editor, mesh)
            params = PolicyParams(transformer=trained, vae=vae)
            save = functools.partial(_save, pictures, missing)
            for count, _ in maker.make(params, [edit(row) for row in missing], save):
                bar.update(count)
                stop.if_asked(f"at {bar.n} of {total} images")
            del trained, params  # free them before the next editor is loaded


def _save(
    pictures: Pictures,
    rows: Sequence[int],
    number: int,
    source: Source,
    pixels: UInt8[np.ndarray, "h w 3"],
) -> None:
    pictures.write(rows[number], pixels)
