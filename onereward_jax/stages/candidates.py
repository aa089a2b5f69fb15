"""Stage `candidates`: N edits of each triplet by the base editor, with drawn settings (stage 1).

preferences.sqlite   candidates with their settings; the stage `annotate` adds preferences
pictures/<split>/<triplet>-<index>.png
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Float32
from ml_collections import FrozenConfigDict
from PIL import Image

from onereward_jax.annotation import Candidate, PreferenceStore
from onereward_jax.annotation.binding import pixel_digest, source_digest
from onereward_jax.common.atomic_file import atomic_file
from onereward_jax.common.rng import generator
from onereward_jax.data.pipeline import TripletSequence, same_size_parts, sizes_of
from onereward_jax.data.triplets import Triplets
from onereward_jax.parallel import gather, is_writer, shard_whole
from onereward_jax.parallel.hosts import several, stop_requested
from onereward_jax.policy import (
    Editor,
    TextCache,
    load_editor,
    open_text_cache,
    read_editor,
    sigma_table,
)
from onereward_jax.policy.generate import EditBatch, make_generate
from onereward_jax.stages.data import open_triplets
from onereward_jax.stages.disturb import disturbed
from onereward_jax.stages.progress import progress_bar
from onereward_jax.stages.settings import check_batch, compute_dtype, task_probabilities
from onereward_jax.stages.stage import Results, StageContext
from onereward_jax.tasks import TASKS, Task
from onereward_jax.training.loop import Stopped

STORE = "preferences.sqlite"
ON = "the same command goes on from there"


@dataclasses.dataclass(frozen=True)
class Plan:
    """A candidate to be made: where its triplet is, and the settings drawn for it."""

    split: str
    row: int
    candidate: Candidate


def check(context: StageContext) -> None:
    """Before the chain starts: batch and mesh, how tasks are shared out, the editor's folder.

    Raises:
      FileNotFoundError, ValueError: naming the field.
    """
    check_batch(context.config, "candidates", context.mesh)
    task_probabilities(context.config)
    if "pretrain" not in context.config.stages:
        folder, transformer = context.base_model("editor"), context.base_transformer()
        try:
            read_editor(folder, transformer=transformer)
        except (FileNotFoundError, ValueError) as error:
            raise type(error)(
                f"config.models.editor or config.models.transformer: {error}"
            ) from error


def run(context: StageContext) -> Results:
    """Makes what is missing; returns how many candidates there are."""
    config = context.config.candidates
    editor, params = load_editor(
        context.base_model("editor"),
        context.mesh,
        transformer=context.base_transformer(),
        dtype=compute_dtype(context.config),
        param_dtype=compute_dtype(context.config),  # nothing is learnt here: no float32 master
        paste_back=context.config.models.paste_back,
    )
    triplets = {split: open_triplets(context, split) for split in ("train", "test")}
    plans = [
        plan
        for split, source in triplets.items()
        for plan in plan_candidates(
            config, split, source, context.config.seed, task_probabilities(context.config)
        )
    ]
    for split in triplets:
        if not any(plan.split == split for plan in plans):
            raise ValueError(
                f"candidates: no triplet of {split} is of a task that config.rl.task_probabilities "
                'draws; config.candidates.tasks = "evenly" takes all tasks'
            )
    cache = open_text_cache(context.output("embed") / "prompts")
    sizes = {size for source in triplets.values() for size in sizes_of(source)}
    generate = {size: make_generate(editor, size, context.mesh) for size in sizes}
    with _open_store(context) as store:
        missing = _missing(plans, store)
        # neighbours with the same number of steps share a batch
        missing.sort(key=lambda plan: plan.candidate.num_inference_steps)
        shapes = np.array([triplets[plan.split].sizes[plan.row] for plan in missing], np.int32)
        parts = same_size_parts(shapes.reshape(-1, 2), np.arange(len(missing)), config.batch_size)
        with progress_bar(
            "candidates", len(plans), initial=len(plans) - len(missing), unit="picture"
        ) as bar:
            for numbers in parts:
                part = [missing[number] for number in numbers]
                batch, steps = _batch(part, config, triplets, cache, editor)
                made = generate[batch.image.shape[1:3]](
                    params, shard_whole(batch, context.mesh), np.int32(steps)
                )
                images = gather(made)
                if store is not None:
                    store.add_candidates(_save(context, part, batch, images))
                bar.update(len(part))
                if stop_requested():
                    raise Stopped(f"candidates: stopped at {bar.n} of {len(plans)}, as asked; {ON}")
    return {"candidates": len(plans)}


def plan_candidates(
    config: FrozenConfigDict,
    split: str,
    triplets: Triplets,
    seed: int,
    probabilities: Mapping[Task, float],
) -> Iterator[Plan]:
    """The candidates of a split, settings drawn as in the paper.

    Args:
      config: the section `candidates`; its field named as the split says how many triplets, `tasks`
        how many of each task.
      split, triplets: which triplets there are.
      seed: settings depend on (seed, split, name of the triplet, index) only.
      probabilities: p_k.
    """
    ids = triplets.column("id")
    for row in choose_rows(triplets, ids, config[split], config.tasks, probabilities, seed):
        disturbs = generator(seed, "disturb", split, ids[row]).random() < config.disturbed
        for index in range(config.count):
            rng = generator(seed, "candidate", split, ids[row], index)
            candidate = Candidate(
                triplet_id=f"{split}/{ids[row]}",
                index=index,
                picture=f"pictures/{split}/{ids[row]}-{index}.png",
                num_inference_steps=int(rng.choice(config.num_steps)),
                guidance_scale=float(rng.uniform(*config.guidance_scale)),
                true_cfg_scale=float(rng.uniform(*config.true_cfg_scale)),
                negative_prompt=str(rng.choice(config.negative_prompts)),
                noise_strength=float(rng.uniform(*config.strength)),
                noise_seed=int(rng.integers(2**31)),
                disturbance=float(disturbs * rng.uniform(*config.disturbance)),
            )
            if config.guided_by == "either":
                left_out = str(rng.choice(["guidance_scale", "true_cfg_scale"]))
                candidate = dataclasses.replace(candidate, **{left_out: config[left_out][0]})
            yield Plan(split, row, candidate)


def choose_rows(
    triplets: TripletSequence,
    names: Sequence[str],
    count: int,
    tasks: str,
    probabilities: Mapping[Task, float],
    seed: int,
) -> list[int]:
    """Some triplets of each task, `count` of them together where there are so many.

    Tasks without triplets leave their share to the others; one that has a share gets one triplet at
    least. They are drawn by their names: one more triplet of a task that has some takes the place
    of one other at most. The paper chooses a diverse subset instead, by K-means on CLIP embeddings;
    that is not done here.

    Args:
      triplets: to choose from.
      names: of the triplets.
      count: how many.
      tasks: "as_sampled": the tasks stand in proportion to p_k; "evenly": as many of each.
      probabilities: p_k of the tasks that are drawn; they sum to 1.
      seed: of the choice.

    Raises:
      ValueError: `tasks` is neither.
    """
    shares = {"as_sampled": probabilities, "evenly": dict.fromkeys(TASKS, 1 / len(TASKS))}
    if tasks not in shares:
        raise ValueError(f'candidates.tasks must be "as_sampled" or "evenly", found {tasks!r}')
    of_task = {task: triplets.with_task(task).tolist() for task in shares[tasks]}
    total = sum(share for task, share in shares[tasks].items() if of_task[task])
    rows = []
    for task, found in of_task.items():
        drawn = {row: generator(seed, "chosen", names[row]).random() for row in found}
        wanted = round(count * shares[tasks][task] / total) if found else 0
        rows += sorted(found, key=drawn.get)[: max(wanted, 1)]
    return rows


def _open_store(context: StageContext) -> contextlib.AbstractContextManager:
    """The stage's store on the process that writes, None on the others."""
    if not is_writer():
        return contextlib.nullcontext()
    return PreferenceStore(context.folder / STORE)


def _missing(plans: Sequence[Plan], store: PreferenceStore | None) -> list[Plan]:
    """The plans not yet carried out, on every process what the writer finds in its store.

    Candidates that are planned no more leave the store.
    """
    absent = np.zeros(len(plans), bool)
    if store is not None:
        wanted = [(plan.candidate.triplet_id, plan.candidate.index) for plan in plans]
        store.keep_candidates(wanted)
        made = {(old.triplet_id, old.index) for old in store.candidates()}
        absent[:] = [one not in made for one in wanted]
    if several():
        absent = multihost_utils.broadcast_one_to_all(absent)
    return [plan for plan, is_absent in zip(plans, absent) if is_absent]


def _batch(
    plans: Sequence[Plan],
    config: FrozenConfigDict,
    triplets: dict[str, Triplets],
    cache: TextCache,
    editor: Editor,
) -> tuple[EditBatch, int]:
    """Plans of one size as a full batch (the last one repeated), and the steps of its longest grid.
    """
    plans = [*plans, *[plans[-1]] * (config.batch_size - len(plans))]
    drawn = [plan.candidate for plan in plans]
    examples = [triplets[plan.split][plan.row] for plan in plans]
    size = examples[0]["image"].shape[:2]
    grids = [editor.sigmas(one.num_inference_steps, size, one.noise_strength) for one in drawn]
    batch = EditBatch(
        image=np.stack([np.float32(example["image"]) / 127.5 - 1.0 for example in examples]),
        mask=np.stack([np.float32(example["mask"] >= 128) for example in examples]),
        embeds=cache.lookup([example["prompt"] for example in examples]),
        negative_embeds=cache.lookup([one.negative_prompt for one in drawn]),
        sigmas=sigma_table(grids, max(config.num_steps) + 1),
        guidance_scale=np.float32([one.guidance_scale for one in drawn]),
        true_cfg_scale=np.float32([one.true_cfg_scale for one in drawn]),
        noise_seed=np.int32([one.noise_seed for one in drawn]),
    )
    return batch, max(len(grid) for grid in grids) - 1


def _save(
    context: StageContext,
    plans: Sequence[Plan],
    batch: EditBatch,
    images: Float32[np.ndarray, "b h w 3"],
) -> Iterator[Candidate]:
    """Writes the pictures of `plans` (the padding behind them is left out), adds their digests."""
    for plan, source, mask, image in zip(plans, batch.image, batch.mask, images):
        drawn = plan.candidate
        pixels = to_uint8(disturbed(image, mask, drawn.disturbance, drawn.noise_seed))
        with atomic_file(context.folder / drawn.picture) as draft:
            Image.fromarray(pixels).save(draft)
        yield dataclasses.replace(
            drawn,
            source_digest=source_digest(to_uint8(source), np.uint8(mask * 255)),
            digest=pixel_digest(pixels),
        )


def to_uint8(image: Float32[np.ndarray, "h w 3"]) -> np.ndarray:
    """[-1, 1] to 0 ... 255, rounded."""
    return np.clip(np.rint((image + 1.0) * 127.5), 0, 255).astype(np.uint8)
