"""Stage `candidates`: N edits of each triplet by the base editor, with random settings (stage 1).

In later rounds (`chain.rounds`) the current policy makes some of them.

preferences.sqlite   candidates with their settings; the stage `annotate` adds preferences
pictures/<split>/<triplet>-<index>.png, by the policy <triplet>-<index>-policy.png
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import UInt8
from PIL import Image

from onereward_jax.annotation import Candidate, PreferenceStore
from onereward_jax.annotation.picture_digests import pixel_digest, source_digest
from onereward_jax.chain.base_models import made_by
from onereward_jax.chain.plugins import check_plugin, maker
from onereward_jax.chain.stage import Results, StageContext
from onereward_jax.common.atomic_file import atomic_file
from onereward_jax.common.pixels import from_uint8, to_uint8
from onereward_jax.convert import VAE, load_params
from onereward_jax.data.triplets import Triplets
from onereward_jax.parallel import is_writer
from onereward_jax.parallel.distributed import gather_on_writer, is_multiprocess
from onereward_jax.parallel.preemption import stop_points
from onereward_jax.parallel.progress import progress_bar
from onereward_jax.policy import PolicyParams, open_text_cache, read_policy
from onereward_jax.policy.lora_adapters import load_trained
from onereward_jax.policy.policy_loader import abstract_params
from onereward_jax.stages.candidate_editors import (
    editor_of,
    from_policy,
    weights_of,
)
from onereward_jax.stages.candidate_plans import CandidateTransform, Plan, plan_candidates
from onereward_jax.stages.candidate_settings import most_steps
from onereward_jax.stages.data import open_triplets
from onereward_jax.stages.edit_batches import Edit, PictureMaker, Source
from onereward_jax.stages.preference_stores import open_store
from onereward_jax.stages.rl_settings import task_probabilities
from onereward_jax.stages.settings import check_batch, compute_dtype


def check(context: StageContext) -> None:
    """Checks batch size, mesh, task probabilities and the editor's folder.

    Raises:
      FileNotFoundError, ValueError: naming the field.
    """
    check_batch(context.config, "candidates", context.mesh)
    check_plugin(context.config, "candidates.transform")
    if context.round > 1:
        from_policy(context.config)
    task_probabilities(context.config)
    check_editor(context)


def check_editor(context: StageContext) -> None:
    """Checks the config files of the base editor, unless a stage makes it.

    Raises:
      FileNotFoundError, ValueError: naming the field.
    """
    if made_by(context.config, "models.editor"):
        return
    folder, transformer = context.base_model("editor"), context.base_transformer()
    try:
        read_policy(folder, transformer=transformer)
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"config.models.editor or config.models.transformer: {error}") from error


def run(context: StageContext) -> Results:
    """Generates missing candidates; returns their number.

    Every process writes the images of its own devices, and reports them to process 0, which writes
    the store.
    """
    transform = _transform(context)
    triplets = {split: open_triplets(context, split) for split in ("train", "test")}
    plans = [
        plan
        for split, source in triplets.items()
        for plan in plan_candidates(context.config, split, source, transform, context.round)
    ]
    for split in triplets:
        if not any(plan.split == split for plan in plans):
            raise ValueError(
                f"candidates: no triplet of {split} is of a task that config.rl.task_probabilities "
                'draws; config.candidates.tasks = "evenly" takes all tasks'
            )
    with _open_store(context) as store:
        missing = _missing(plans, store, context.folder)
        # Sort, so that one editor at a time is loaded, and a batch has similar numbers of steps.
        missing.sort(
            key=lambda plan: (
                editor_of(plan.candidate.picture),
                plan.candidate.num_inference_steps,
            )
        )
        done = len(plans) - len(missing)
        with (
            progress_bar(
                "candidates",
                len(plans),
                initial=done,
                unit="picture",
                program=context.program("candidates"),
            ) as bar,
            stop_points("candidates") as stop,
        ):
            for count, saved in _made(context, missing, triplets) if missing else ():
                reports = gather_on_writer(json.dumps(saved))
                if store is not None:
                    store.add_candidates(
                        dataclasses.replace(missing[number].candidate, **digests)
                        for saved in reports
                        for number, digests in json.loads(saved)
                    )
                bar.update(count)
                stop.if_asked(f"at {bar.n} of {len(plans)} images")
    return {"candidates": len(plans)}


def _transform(context: StageContext) -> CandidateTransform | None:
    make = maker(context.config, "candidates.transform")
    return make(context.config) if make else None


def _made(
    context: StageContext, plans: Sequence[Plan], triplets: Mapping[str, Triplets]
) -> Iterator[tuple[int, list[tuple[int, dict[str, str]]]]]:
    """Generates the candidates of `plans`, sorted by editor: see `PictureMaker.make`.

    Yields their digests. Only one editor at a time is loaded.
    """
    config, dtype = context.config.candidates, compute_dtype(context.config)
    transform, mesh = _transform(context), context.mesh
    folder, transformer = context.base_model("editor"), context.base_transformer()
    editor = read_policy(
        folder,
        transformer=transformer,
        dtype=dtype,
        param_dtype=dtype,  # inference only: no float32 master weights
        paste_back=context.config.models.paste_back,
        solver=context.config.models.solver,
    )
    vae = load_params(folder / "vae", abstract_params(editor, mesh).vae, VAE)
    edits = [
        Edit(
            triplets[plan.split],
            plan.row,
            num_steps=plan.candidate.num_inference_steps,
            guidance_scale=plan.candidate.guidance_scale,
            true_cfg_scale=plan.candidate.true_cfg_scale,
            negative_prompt=plan.candidate.negative_prompt,
            noise_seed=plan.candidate.noise_seed,
            strength=plan.candidate.noise_strength,
        )
        for plan in plans
    ]

    def save(number: int, source: Source, pixels: UInt8[np.ndarray, "h w 3"]) -> dict[str, str]:
        drawn = plans[number].candidate
        return save_candidate(context.folder, drawn, source, pixels, transform)

    cache = open_text_cache(context.output("embed") / "prompts")
    maker = PictureMaker(editor, mesh, cache, config.batch_size, most_steps(context.config))
    made_by = [editor_of(plan.candidate.picture) for plan in plans]
    for name in dict.fromkeys(made_by):
        first, count = made_by.index(name), made_by.count(name)
        trained = load_trained(weights_of(context, name), transformer, editor, mesh)
        params = PolicyParams(transformer=trained, vae=vae)
        del trained
        shifted = functools.partial(_shifted, save, first)
        for done, saved in maker.make(params, edits[first : first + count], shifted):
            yield done, [(first + number, digests) for number, digests in saved]
        del params  # free them before the next editor is loaded


def _shifted(
    save: Callable[..., dict[str, str]], first: int, number: int, *rest: Any
) -> dict[str, str]:
    """`save` for numbers that start at `first`."""
    return save(first + number, *rest)


def _open_store(context: StageContext) -> contextlib.AbstractContextManager:
    """The stage's store on process 0, None on the others."""
    if not is_writer():
        return contextlib.nullcontext()
    return open_store(context)


def _missing(plans: Sequence[Plan], store: PreferenceStore | None, folder: Path) -> list[Plan]:
    """The plans without a candidate in the store of process 0; the same on all processes.

    Candidates that are no longer planned, were made with other settings, or have no image in
    `folder`, are removed from the store.
    """
    absent = np.zeros(len(plans), bool)
    if store is not None:
        old = {_settings(one) for one in store.candidates()}
        # Images that were lost with their host are generated again.
        there = {path.relative_to(folder).as_posix() for path in folder.glob("pictures/*/*.png")}
        store.keep_candidates(
            (plan.candidate.triplet_id, plan.candidate.index)
            for plan in plans
            if plan.candidate.picture in there and plan.candidate in old
        )
        made = {_settings(one) for one in store.candidates()}
        absent[:] = [plan.candidate not in made for plan in plans]
    if is_multiprocess():
        absent = multihost_utils.broadcast_one_to_all(absent)
    return [plan for plan, is_absent in zip(plans, absent) if is_absent]


def _settings(made: Candidate) -> Candidate:
    """A candidate as it was planned."""
    return dataclasses.replace(made, digest="", source_digest="")


def save_candidate(
    folder: Path,
    drawn: Candidate,
    source: Source,
    pixels: UInt8[np.ndarray, "h w 3"],
    transform: CandidateTransform | None = None,
) -> dict[str, str]:
    """Applies the transform and writes the image of a candidate; returns its digests.

    Args:
      folder: folder of the stage.
      drawn: the candidate.
      source: its triplet.
      pixels: the generated image.
      transform: transform of finished images; None: none.
    """
    if transform and drawn.disturbance:
        image, mask = from_uint8(pixels), np.float32(source.mask >= 128)
        pixels = to_uint8(transform.apply(image, mask, drawn.disturbance, drawn.noise_seed))
    with atomic_file(folder / drawn.picture, sync=True) as draft:  # before it enters the store
        Image.fromarray(pixels).save(draft)
    return {
        "source_digest": source_digest(source.image, source.mask),
        "digest": pixel_digest(pixels),
    }
