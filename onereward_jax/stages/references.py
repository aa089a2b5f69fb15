"""Stage `references`: makes the pictures of the reference that `rl` compares with, before it runs.

Only with `config.rl.references = "bank"`, see `reference_bank`. The editor, its guidance and the
number of steps are those of the reference in `rl`. Pictures that are already there are kept, also
those that other settings of `rl` needed.

pictures/<triplet>-<index>.png
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Bool, UInt8
from PIL import Image

from onereward_jax.chain.rounds import config_in_round, rounds_of
from onereward_jax.chain.stage import Results, StageContext
from onereward_jax.common.atomic_file import atomic_file
from onereward_jax.convert import FLUX, VAE, load_params
from onereward_jax.data.triplets import Triplets
from onereward_jax.parallel import is_writer
from onereward_jax.parallel.distributed import is_multiprocess
from onereward_jax.parallel.preemption import stop_points
from onereward_jax.parallel.progress import progress_bar
from onereward_jax.policy import PolicyParams, open_text_cache, read_policy
from onereward_jax.policy.policy_loader import abstract_params
from onereward_jax.stages.candidates import check_editor
from onereward_jax.stages.data import open_triplets
from onereward_jax.stages.edit_batches import Edit, PictureMaker, Source
from onereward_jax.stages.guidance_settings import rl_guidance
from onereward_jax.stages.reference_bank import (
    Reference,
    needed_references,
    noise_seed,
    picture_of,
)
from onereward_jax.stages.rl_settings import check_references, rl_settings
from onereward_jax.stages.settings import check_batch, compute_dtype


def check(context: StageContext) -> None:
    """Checks that `rl` takes its references from the bank, batch size, mesh and editor.

    Raises:
      FileNotFoundError, ValueError: naming the field.
    """
    if context.config.rl.references != "bank":
        raise ValueError(
            'config.stages has the stage references, which config.rl.references="rollout" does not '
            'need: leave it out, or set "bank"'
        )
    rl_settings(context.config)
    check_references(context.config)
    check_batch(context.config, "candidates", context.mesh)
    check_editor(context)


def run(context: StageContext) -> Results:
    """Makes the missing pictures; returns how many the run needs.

    Every process writes the images of its own devices.
    """
    triplets = open_triplets(context, "train")
    wanted = sorted(needed_in_rounds(context, triplets))
    names = triplets.column("id")
    absent = _absent(context, [picture_of(names[row], index) for row, index in wanted])
    missing = [wanted[number] for number in np.flatnonzero(absent)]
    program = context.program("references")
    with (
        progress_bar(
            "references",
            len(wanted),
            initial=len(wanted) - len(missing),
            unit="picture",
            program=program,
        ) as bar,
        stop_points("references") as stop,
    ):
        if missing:
            maker, params = _editor(context)
            edits = [_edit(context, triplets, names, one) for one in missing]

            def save(number: int, source: Source, pixels: UInt8[np.ndarray, "h w 3"]) -> None:
                row, index = missing[number]
                path = context.folder / picture_of(names[row], index)
                with atomic_file(path, sync=True) as draft:  # its existence says that it is whole
                    Image.fromarray(pixels).save(draft, format="PNG")

            for count, _ in maker.make(params, edits, save):
                bar.update(count)
                stop.if_asked(f"at {bar.n} of {len(wanted)} images")
    return {"references": len(wanted)}


def needed_in_rounds(context: StageContext, triplets: Triplets) -> set[Reference]:
    """The pictures that `rl` needs in all rounds: its reference stays the base."""
    needed = set(needed_references(context.config, triplets))
    for number in range(2, rounds_of(context.config) + 1):
        needed |= set(needed_references(config_in_round(context.config, "rl", number), triplets))
    return needed


def _absent(context: StageContext, pictures: Sequence[str]) -> Bool[np.ndarray, "n"]:
    """Which of these pictures process 0 does not have; the same on all processes."""
    folder, absent = context.folder, np.ones(len(pictures), bool)
    if is_writer():
        there = {path.relative_to(folder).as_posix() for path in folder.glob("pictures/*.png")}
        absent[:] = [picture not in there for picture in pictures]
    return multihost_utils.broadcast_one_to_all(absent) if is_multiprocess() else absent


def _editor(context: StageContext) -> tuple[PictureMaker, PolicyParams]:
    """The base editor."""
    config, dtype, mesh = context.config, compute_dtype(context.config), context.mesh
    folder, transformer = context.base_model("editor"), context.base_transformer()
    editor = read_policy(
        folder,
        transformer=transformer,
        dtype=dtype,
        param_dtype=dtype,  # inference only: no float32 master weights
        paste_back=config.models.paste_back,
        solver=config.models.solver,
    )
    shapes = abstract_params(editor, mesh)
    params = PolicyParams(
        transformer=load_params(transformer, shapes.transformer, FLUX),
        vae=load_params(folder / "vae", shapes.vae, VAE),
    )
    cache = open_text_cache(context.output("embed") / "prompts")
    maker = PictureMaker(editor, mesh, cache, config.candidates.batch_size, config.rl.num_steps)
    return maker, params


def _edit(context: StageContext, triplets: Triplets, names: Sequence[str], one: Reference) -> Edit:
    guidance = rl_guidance(context.config)["reference"]
    return Edit(
        triplets,
        one.row,
        num_steps=context.config.rl.num_steps,
        guidance_scale=guidance.guidance_scale,
        true_cfg_scale=guidance.true_cfg_scale,
        negative_prompt=guidance.negative_prompt,
        noise_seed=noise_seed(names[one.row], one.index),
    )
