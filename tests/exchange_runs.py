"""A small run with people's answers, and preferences folders, for the tests of the exchange."""

import json

import numpy as np
from PIL import Image

from onereward_jax.annotation import Candidate, Preference, PreferenceStore
from onereward_jax.annotation.picture_digests import pixel_digest, source_digest
from onereward_jax.data.folder_source import FolderSource
from onereward_jax.data.shard_writer import write_triplets
from onereward_jax.data.triplets import Triplets
from onereward_jax.stages.preference_stores import STORE
from onereward_jax.tasks import DIMENSIONS, TASKS

SIZE, COUNT = 32, 3
TASK_NAMES = ("fill", "removal", "extend_with_prompt")


def noise(*seed):
    return np.random.default_rng(seed).integers(0, 255, (SIZE, SIZE, 3), np.uint8)


def write_run(workdir, photographs=2, prompt='a "red" apple, größer 🍎'):
    """Data, candidates and answers of two annotators, as the stages write them.

    Each photograph has a row per task, in both splits; some answers are ∅.
    """
    folder = workdir / "own-pictures"
    for path in (workdir / "data", folder, workdir / "candidates/pictures", workdir / "annotate"):
        path.mkdir(parents=True)
    mask = Image.new("L", (SIZE, SIZE))
    mask.paste(255, (8, 8, 24, 24))
    mask.save(folder / "mask.png")
    rows = []
    for split in ("train", "test"):
        for number in range(photographs):
            name = f"{split}-{number}.png"
            Image.fromarray(noise(number, split == "test")).save(folder / name)
            for task in TASK_NAMES:
                row = {"image": name, "mask": "mask.png", "task": task, "split": split}
                rows.append(row | ({} if task == "removal" else {"prompt": prompt}))
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    write_triplets(workdir / "data", FolderSource(folder, SIZE, (1.0,)))
    candidates, preferences = [], []
    for split in ("train", "test"):
        triplets = Triplets(workdir / "data", split)
        for row, name in enumerate(triplets.column("id")):
            example = triplets[row]
            for index in range(COUNT):
                pixels = noise(row, index, split == "test", 7)
                picture = f"pictures/{split}-{name}-{index}.png"
                Image.fromarray(pixels).save(workdir / "candidates" / picture)
                candidates.append(
                    Candidate(
                        f"{split}/{name}",
                        index,
                        picture,
                        num_inference_steps=20 + index,
                        guidance_scale=1.0 + index / 3,
                        true_cfg_scale=4.0,
                        negative_prompt="nsfw",
                        noise_strength=0.7,
                        noise_seed=row,
                        source_digest=source_digest(example["image"], example["mask"]),
                        digest=pixel_digest(pixels),
                    )
                )
            task = TASKS[triplets.tasks[row]]
            for place, dimension in enumerate(DIMENSIONS[task]):
                for annotator in ("ann", "bob"):
                    seed = (row, place, annotator == "bob")
                    best, worst = np.random.default_rng(seed).permutation(COUNT)[:2].tolist()
                    none = place == 1 and annotator == "ann"
                    preferences.append(
                        Preference(
                            f"{split}/{name}",
                            task,
                            dimension,
                            None if none else best,
                            None if none else worst,
                            annotator,
                            answered_at=1764000000.25 + row,
                            seconds=1.5 + place / 3,
                        )
                    )
    with PreferenceStore(workdir / "candidates" / STORE) as store:
        store.add_candidates(candidates)
    with PreferenceStore(workdir / "annotate" / STORE) as store:
        store.add_candidates(candidates)
        store.add_preferences(preferences)
    return workdir


def stored(workdir):
    """(candidates, preferences) of the run's store."""
    with PreferenceStore(workdir / "annotate" / STORE) as store:
        return store.candidates(), store.preferences()


def records(comparisons):
    """The same records, from comparisons of an exported folder; `picture` is left out."""
    candidates, preferences = [], []
    for one in comparisons:
        for index, each in enumerate(one.candidates):
            assert each.settings["index"] == index
            kept = {"triplet_id": one.id, "digest": each.picture.pixels, "picture": ""}
            candidates.append(Candidate(**kept, **each.settings))
        for answer in one.answers:
            preferences.append(
                Preference(
                    one.id,
                    one.task,
                    answer.dimension,
                    answer.best,
                    answer.worst,
                    answer.annotator,
                    answer.answered_at,
                    answer.seconds,
                )
            )
    candidates.sort(key=lambda c: (c.triplet_id, c.index))
    preferences.sort(key=lambda p: (p.triplet_id, p.dimension, p.annotator))
    return candidates, preferences
