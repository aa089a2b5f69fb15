"""The stage `candidates`: what one step after the other would make; stopped, it makes the rest."""

import dataclasses
import functools
import json
import os
import pathlib
import shutil

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict, FrozenConfigDict
from PIL import Image
from torch_pipeline import WIDTH, whole_pipeline

import onereward_jax
from onereward_jax.annotation import PreferenceStore
from onereward_jax.annotation.picture_digests import pixel_digest, source_digest
from onereward_jax.chain.stage import StageContext
from onereward_jax.common.config_files import load_config
from onereward_jax.common.pixels import to_uint8
from onereward_jax.data.folder_source import FolderSource
from onereward_jax.data.shard_writer import write_triplets
from onereward_jax.data.triplets import Triplets
from onereward_jax.mini.colour_noise import add_colour_noise, make_transform
from onereward_jax.parallel import batch_sharding, host_local_rows, make_mesh, replicate
from onereward_jax.policy import (
    PromptEmbeds,
    add_to_text_cache,
    load_policy,
    open_text_cache,
    sigma_table,
)
from onereward_jax.policy.generate import EditBatch
from onereward_jax.stages import candidates, edit_batches
from onereward_jax.stages.candidate_plans import plan_candidates
from onereward_jax.stages.preference_stores import STORE
from onereward_jax.stages.settings import compute_dtype

ROOT = pathlib.Path(onereward_jax.__file__).parents[1]
SIZE, ROWS, COUNT, BATCH = 64, 3, 3, 8
TOTAL = (6 + 4) * COUNT
"""Of six triplets to train on, and of two of each task to test with."""
STEPS = (1, 2)


def write_folder(folder):
    """So many triplets of fill and of removal in each split."""
    rng, rows = np.random.default_rng(0), []
    for number in range(4 * ROWS):
        mask = np.zeros((SIZE, SIZE), np.uint8)
        mask[16 : 32 + number, 16:48] = 255
        for name, pixels in (
            ("image", rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)),
            ("mask", mask),
        ):
            Image.fromarray(pixels).save(folder / f"{name}-{number}.png")
        rows.append(
            {
                "image": f"image-{number}.png",
                "mask": f"mask-{number}.png",
                "task": "fill" if number % 2 else "removal",
                "prompt": f"{number} red apples",
                "split": "train" if number < 2 * ROWS else "test",
            }
        )
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    """Runs of the stage share what they compile: editors of one folder are equal."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(edit_batches, "make_generate", functools.cache(edit_batches.make_generate))
        yield


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    """The stage after `data` and `embed`, with a small editor of random weights."""
    workdir = tmp_path_factory.mktemp("run")
    whole_pipeline(True).save_pretrained(workdir / "editor")
    (workdir / "photos").mkdir()
    write_folder(workdir / "photos")
    write_triplets(workdir / "data", FolderSource(workdir / "photos", SIZE))
    config = load_config(f"{ROOT}/configs/mini.py:smoke")
    config.stages = ("data", "embed", "candidates")
    config.data.source = "folder"
    config.models.editor = str(workdir / "editor")
    config.candidates.update(
        count=COUNT,
        batch_size=BATCH,
        train=2 * ROWS,
        test=ROWS,
        num_steps=STEPS,
        true_cfg_scale=(1.0, 5.0),
    )
    config.candidates.guided_by = "either"
    rng = np.random.default_rng(1)
    prompts = [*config.candidates.negative_prompts, config.guidance.negative_prompt]
    for split in ("train", "test"):
        prompts += Triplets(workdir / "data", split).column("prompt")
    prompts = list(dict.fromkeys(prompts))
    embeds = PromptEmbeds(
        rng.normal(size=(len(prompts), 5, WIDTH)).astype(np.float32),
        rng.normal(size=(len(prompts), WIDTH)).astype(np.float32),
    )
    add_to_text_cache(workdir / "embed" / "prompts", [(prompts, embeds)])
    mesh = make_mesh(2, 2, 2)
    return StageContext("candidates", FrozenConfigDict(config), workdir, mesh)


def beside(context, name):
    """The same stage in another work folder, from the same data and prompts."""
    workdir = context.workdir.with_name(f"{context.workdir.name}-{name}")
    workdir.mkdir()
    for earlier in ("data", "embed"):
        (workdir / earlier).symlink_to(context.workdir / earlier)
    return dataclasses.replace(context, workdir=workdir)


def made(context):
    """What the store says, and the pixels beside it; no file may be left over."""
    with PreferenceStore(context.folder / STORE) as store:
        found = {(one.triplet_id, one.index): one for one in store.candidates()}
    pixels = {}
    for key, one in found.items():
        with Image.open(context.folder / one.picture) as picture:
            pixels[key] = np.asarray(picture)
    return found, pixels


def triplets_of(context):
    return {split: Triplets(context.workdir / "data", split) for split in ("train", "test")}


def batches(context):
    """What is to be made, in the order in which it is."""
    plans = [
        plan.candidate
        for split, source in triplets_of(context).items()
        for plan in plan_candidates(context.config, split, source, make_transform(context.config))
    ]
    plans.sort(key=lambda drawn: drawn.num_inference_steps)
    kinds = dict.fromkeys(is_guided(drawn) for drawn in plans)
    alike = ([drawn for drawn in plans if is_guided(drawn) == kind] for kind in kinds)
    return [part[at : at + BATCH] for part in alike for at in range(0, len(part), BATCH)]


def is_guided(drawn):
    return drawn.true_cfg_scale != 1.0


@pytest.fixture(scope="module")
def uninterrupted(context):
    """The stage, run once."""
    assert candidates.run(context) == {"candidates": TOTAL}
    return made(context)


def test_test_candidates_like_those_of_rl_replace_the_drawn_ones_and_no_others(
    context, uninterrupted
):
    before, pixels = uninterrupted
    config = ConfigDict(context.config.to_dict())
    config.candidates.test_like_rl = True
    config.rl.num_steps = max(STEPS)
    changed = beside(dataclasses.replace(context, config=FrozenConfigDict(config)), "like-rl")
    shutil.copytree(context.folder, changed.folder)
    assert candidates.run(changed) == {"candidates": TOTAL}
    after, new = made(changed)
    assert after.keys() == before.keys()
    for key, one in after.items():
        if key[0].startswith("train/"):
            assert one == before[key]
            np.testing.assert_array_equal(new[key], pixels[key])
            continue
        assert (one.num_inference_steps, one.noise_strength, one.disturbance) == (max(STEPS), 1, 0)
        assert one.true_cfg_scale == config.guidance.true_cfg_scale
        assert one.negative_prompt == config.guidance.negative_prompt
        assert one.noise_seed == before[key].noise_seed and one.digest != before[key].digest
    made_again = [key for key in after if (new[key] != pixels[key]).any()]
    assert made_again and all(key[0].startswith("test/") for key in made_again)


def test_pictures_are_those_of_one_batch_after_the_other_bit_for_bit(context, uninterrupted):
    found, pixels = uninterrupted
    assert len(found) == TOTAL
    kind = compute_dtype(context.config)
    options = {"paste_back": context.config.models.paste_back, "dtype": kind, "param_dtype": kind}
    editor, params = load_policy(context.base_model("editor"), context.mesh, **options)
    generate = {
        guided: edit_batches.make_generate(editor, (SIZE, SIZE), context.mesh, guided=guided)
        for guided in (False, True)
    }
    cache = open_text_cache(context.output("embed") / "prompts")
    examples = {
        f"{split}/{source[row]['id']}": source[row]
        for split, source in triplets_of(context).items()
        for row in range(len(source))
    }
    parts = batches(context)
    assert {drawn.num_inference_steps for part in parts for drawn in part} == set(STEPS)
    assert {is_guided(part[0]) for part in parts} == {False, True}
    disturbances = 0
    for part in parts:
        rows = part + [part[-1]] * (BATCH - len(part))
        sources = [examples[drawn.triplet_id] for drawn in rows]
        grids = [
            editor.sigmas(drawn.num_inference_steps, (SIZE, SIZE), drawn.noise_strength)
            for drawn in rows
        ]
        batch = EditBatch(
            image=np.stack([np.float32(one["image"]) / 127.5 - 1 for one in sources]),
            mask=np.stack([np.float32(one["mask"] >= 128) for one in sources]),
            embeds=cache.lookup([one["prompt"] for one in sources]),
            negative_embeds=cache.lookup([drawn.negative_prompt for drawn in rows]),
            sigmas=sigma_table(grids, max(STEPS) + 1),
            guidance_scale=np.float32([drawn.guidance_scale for drawn in rows]),
            true_cfg_scale=np.float32([drawn.true_cfg_scale for drawn in rows]),
            noise_seed=np.int32([drawn.noise_seed for drawn in rows]),
        )
        steps = np.int32(max(len(grid) for grid in grids) - 1)
        function = generate[is_guided(part[0])]
        images = np.asarray(function(params, replicate(batch, context.mesh), steps))
        for drawn, source, expected in zip(part, sources, images):
            if drawn.disturbance:
                disturbances += 1
                image, mask = np.float32(expected) / 127.5 - 1, np.float32(source["mask"] >= 128)
                image = add_colour_noise(image, mask, drawn.disturbance, drawn.noise_seed)
                expected = to_uint8(image)
            key = drawn.triplet_id, drawn.index
            np.testing.assert_array_equal(pixels[key], expected)
            assert found[key] == dataclasses.replace(
                drawn,
                digest=pixel_digest(expected),
                source_digest=source_digest(source["image"], source["mask"]),
            )
    assert 0 < disturbances < len(found)
    assert len({one.digest for one in found.values()}) == len(found)


def test_after_a_failure_of_a_writer_only_what_is_missing_is_made(context, uninterrupted):
    expected, pixels = uninterrupted
    again = beside(context, "failing")
    # A folder where a late picture must go: the disk refuses to put the picture there.
    parts = batches(again)
    refused = parts[2][1]
    (again.folder / refused.picture).mkdir(parents=True)
    with pytest.raises(OSError, match=os.path.basename(refused.picture)):
        candidates.run(again)
    found, _ = made(again)
    kept = len(parts[0]) + len(parts[1])
    assert len(found) == kept, "the batches before are kept, of the failing one is told none"
    files = list((again.folder / "pictures").rglob("*"))
    assert not [path for path in files if ".draft" in path.name]
    when = {one.picture: os.stat(again.folder / one.picture).st_mtime_ns for one in found.values()}

    (again.folder / refused.picture).rmdir()
    assert candidates.run(again) == {"candidates": len(expected)}
    now, again_pixels = made(again)
    assert now == expected
    for key, picture in pixels.items():
        np.testing.assert_array_equal(again_pixels[key], picture)
    for picture, before in when.items():
        assert os.stat(again.folder / picture).st_mtime_ns == before, "it was made twice"


def test_each_sample_of_a_batch_is_written_by_one_process():
    """Also where devices that differ in the axis `tensor` hold the same samples."""
    mesh = make_mesh(2, 2, 2)
    values = np.arange(24).reshape(8, 3)
    array = jax.device_put(values, batch_sharding(mesh))
    assert len(array.addressable_shards) == 8, "each sample lies on two devices"
    found = list(host_local_rows(array))
    assert sorted(one.row for one in found) == list(range(8))
    for one in found:
        np.testing.assert_array_equal(one.fetch(), values[one.row])
