"""The bank of references: its pictures are the rollout's, and a run draws the same ones again."""

import dataclasses
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_models
from ml_collections import ConfigDict, FrozenConfigDict
from PIL import Image
from test_candidates_stage import compiled_once, context
from test_pairs_drawn import Many
from test_rl_step import CONFIG, KEY
from test_rounds import inputs, mini, verdicts

from onereward_jax.chain import fingerprints
from onereward_jax.common.pixels import from_uint8
from onereward_jax.parallel import mesh_jit, replicate
from onereward_jax.policy import load_policy
from onereward_jax.policy.generate import seeded_noise
from onereward_jax.stages import references
from onereward_jax.stages.data import open_triplets
from onereward_jax.stages.own_stages import stages_of
from onereward_jax.stages.reference_bank import (
    drawn_references,
    needed_references,
    open_bank,
    picture_of,
)
from onereward_jax.stages.rl_batches import make_batches
from onereward_jax.stages.rl_settings import rl_settings
from onereward_jax.stages.settings import compute_dtype
from onereward_jax.training.methods import METHODS
from onereward_jax.training.rl_config import RLModels
from onereward_jax.training.rl_rollout import draw, policy_noise, reference_images

after_embed, compiled_once = context, compiled_once
"""The fixtures: a run after the stages data and embed, and one compilation for all."""

BANK = {"rl__references": "bank", "rl__bank_size": 2}


def with_bank(context, name="references", **fields):
    """The context of a stage, in a config with a bank of two pictures per triplet."""
    config = ConfigDict(context.config.to_dict())
    config.rl.update({"references": "bank", "bank_size": 2} | fields)
    config.models.solver = "ab2"  # so that stage and step are seen to use it
    return dataclasses.replace(context, stage=name, config=FrozenConfigDict(config))


def pictures(context):
    """Name of each file -> when it was written."""
    files = (context.folder / "pictures").iterdir()
    return {path.name: os.stat(path).st_mtime_ns for path in files}


@pytest.fixture(scope="module")
def made(after_embed):
    """The stage, run once with K = 2: (its context, the triplets, the pictures)."""
    ours = with_bank(after_embed)
    triplets = open_triplets(ours, "train")
    references.check(ours)
    needed = needed_references(ours.config, triplets)
    assert references.run(ours) == {"references": len(needed)}
    assert {picture.index for picture in needed} == {0, 1}
    names = triplets.column("id")
    found = pictures(ours)
    assert found.keys() == {os.path.basename(picture_of(names[row], k)) for row, k in needed}
    return ours, triplets, found


def test_a_picture_is_what_the_rollout_samples_from_its_noise(made):
    """But for the rounding to 8 bits: π_ref, guidance, steps and decoder are the step's."""
    ours, triplets, _ = made
    kind, mesh = compute_dtype(ours.config), ours.mesh
    options = {name: ours.config.models[name] for name in ("paste_back", "solver")}
    editor, params = load_policy(ours.base_model("editor"), mesh, dtype=kind, **options)
    models, settings = RLModels(editor, None), rl_settings(ours.config)
    batches = make_batches(with_bank(ours, "rl"), triplets, triplets, None)
    batch = replicate({k: v for k, v in batches.shown.items() if k != "valid"}, mesh)
    rollout = dataclasses.replace(settings, references="rollout")

    def sampled(params, batch):
        condition = editor.encode_condition(params.vae, batch["image"], batch["mask"])
        noise = seeded_noise(editor, batch["reference_seed"], batch["image"].shape[1:3])
        weights, vae = params.transformer, params.vae
        return reference_images(models, rollout, weights, vae, batch, noise, condition)

    expected = mesh_jit(sampled, mesh)(params, batch)
    difference = np.abs(np.asarray(expected) - np.asarray(batch["reference"]))
    assert difference.max() <= 1 / 255 + 1e-4 and np.std(np.asarray(expected)) > 0.05


def test_only_what_is_missing_is_made(made):
    ours, triplets, before = made
    lost = min(before)
    path = ours.folder / "pictures" / lost
    content = path.read_bytes()
    path.unlink()
    references.run(ours)
    assert path.read_bytes() == content
    again = pictures(ours)
    assert {name for name in again if again[name] != before.get(name)} == {lost}
    grown = with_bank(ours, steps=6, bank_size=3)
    wanted = references.run(grown)["references"]
    then = pictures(ours)
    assert len(then) >= wanted > len(before)
    assert {name: then[name] for name in again} == again, "another K keeps what there is"


def test_samples_get_the_same_pictures_after_a_resume(made):
    ours, triplets, _ = made
    config = with_bank(ours, "rl")
    data, bank = make_batches(config, triplets, triplets, None).data, open_bank(config, triplets)
    drawn = list(drawn_references(ours.config, triplets))
    first, state, second = next(data), data.get_state(), next(data)
    assert first["reference"].dtype == np.float32 and len({one.index for one in drawn}) == 2
    for number, batch in enumerate((first, second)):
        size = len(batch["index"])
        for place, (row, k) in enumerate(drawn[number * size : (number + 1) * size]):
            assert batch["index"][place] == row
            path = ours.folder / picture_of(bank.names[row], k)
            np.testing.assert_array_equal(
                batch["reference"][place], from_uint8(np.asarray(Image.open(path)))
            )
    again = make_batches(config, triplets, triplets, None).data
    again.set_state(state)
    for name, array in next(again).items():
        np.testing.assert_array_equal(array, second[name])


def test_a_lost_picture_is_named(made):
    ours, triplets, _ = made
    bank = open_bank(with_bank(ours, "rl"), triplets)
    elsewhere = dataclasses.replace(bank, folder=bank.folder / "none")
    with pytest.raises(ValueError, match="none/pictures/.*missing or damaged: remove the output"):
        elsewhere.sample(0, 0)


def test_draws_are_the_runs_and_even():
    """Other seeds draw others; every picture of the bank has its share."""
    config = mini(**BANK | {"rl__bank_size": 3, "rl__steps": 150})
    drawn = list(drawn_references(FrozenConfigDict(config), Many()))
    assert drawn == list(drawn_references(FrozenConfigDict(config), Many()))
    counts = np.bincount([one.index for one in drawn])
    assert len(drawn) == 150 * 8 and len(counts) == 3
    assert counts.min() > 340  # expected 400, standard deviation 16
    longer = mini(**BANK | {"rl__bank_size": 3, "rl__steps": 151})
    longer = list(drawn_references(FrozenConfigDict(longer), Many()))
    assert longer[: len(drawn)] == drawn, "more steps go on"
    config.seed += 1
    assert drawn != list(drawn_references(FrozenConfigDict(config), Many()))


# data embed candidates annotate reward references rl evaluate export
STALE = {
    "rl__bank_size=3": ".....+!!!",
    "rl__batch_size=16": ".....+!!!",
    "rl__steps=400": ".....++!!",
    "rl__num_steps=9": ".....!!!!",
    "rl__reference_true_cfg_scale=3": ".....!!!!",
    "rl__optimizer__learning_rate=1": "......!!!",
    "rl__reference_true_cfg_scale=2": ".........",  # as it is, left open
    "seed=1": "!+!!!+!!!",  # scenes of their own; with photographs, runs share the bank
}


def test_the_bank_is_made_again_only_if_its_pictures_would_differ(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprints, "of_model", lambda folder: "model")
    table, then = inputs(mini(**BANK), tmp_path)
    assert list(table)[5:7] == ["references", "rl"], "before rl, without an entry in stages"
    for change, verdict in STALE.items():
        name, _, value = change.partition("=")
        assert verdicts(then, mini(**BANK | {name: int(value)}), tmp_path) == verdict, change
    rounds = BANK | {"rounds": 2}
    _, then = inputs(mini(**rounds), tmp_path)
    found = verdicts(then, mini(**rounds, later_rounds__rl_steps=300), tmp_path)
    assert found == ".....+." + "...+" + "!!", "of all rounds"
    two, _ = stages_of(mini(**rounds))
    assert two.stages.count("references") == 1 and "references-2" not in two.stages


def test_the_policy_shares_the_noise_of_the_picture():
    models, seeds = tiny_models.models(), np.arange(8, dtype=np.int32)
    batch = jax.device_put(tiny_models.rl_batch() | {"reference_seed": seeds})
    draws = draw(models, KEY, jnp.int32(0), batch["image"])
    config = dataclasses.replace(CONFIG, references="bank", shared_noise="all")
    condition = models.editor.encode_condition(
        jax.device_put(tiny_models.weights()[2]), batch["image"], batch["mask"]
    )
    expected = seeded_noise(models.editor, seeds, batch["image"].shape[1:3])
    np.testing.assert_array_equal(policy_noise(models, config, batch, draws, condition), expected)


def test_no_method_counts_a_pass_of_the_reference():
    config = dataclasses.replace(CONFIG, reference_true_cfg_scale=1.0)
    bank = dataclasses.replace(config, references="bank")
    for method in ("frozen", "refl", "nft", "grpo"):
        passes = METHODS[method].passes
        assert passes(config) - passes(bank) == config.num_steps, method
