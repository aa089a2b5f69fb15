"""What the base editor learns from: faint things and words in fills, flaws inside the masks."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import tiny_models
from ml_collections import FrozenConfigDict

from configs.make_mini import get_config
from onereward_jax.chain.stage import StageContext
from onereward_jax.convert.hub import PACKAGE
from onereward_jax.mini.pretrain import base_editor
from onereward_jax.mini.pretrain.flawed_targets import FLAWS, flawed, see_through
from onereward_jax.mini.pretrain.latents import scene_latents
from onereward_jax.mini.world import make_scene
from onereward_jax.parallel import make_mesh
from onereward_jax.policy import FillPolicy, read_policy
from onereward_jax.tasks import PAPER_TASKS, Task

SIZE = 64


def scene_of(task: Task, seed: int = 3):
    return make_scene(np.random.default_rng(seed), task, "train", SIZE)


def test_half_opaque_lies_midway_between_background_and_target():
    scene = scene_of(Task.FILL)
    drawn = see_through(np.random.default_rng(0), scene, 1.0, (0.5, 0.5))
    midway = (np.float32(scene.target) + np.float32(scene.background)) / 2
    np.testing.assert_allclose(drawn, midway, atol=1e-4)
    assert np.abs(drawn - scene.target).max() > 20


@pytest.mark.parametrize("task", [task for task in Task if task is not Task.FILL])
def test_removals_and_extensions_are_as_they_are(task):
    scene = scene_of(task)
    drawn = see_through(np.random.default_rng(0), scene, 1.0, (0.3, 0.3))
    np.testing.assert_array_equal(drawn, scene.target)


def test_the_share_and_the_range_are_kept():
    scene, rng = scene_of(Task.FILL), np.random.default_rng(0)
    target, background = np.float32(scene.target), np.float32(scene.background)
    there = np.abs(target - background) > 50
    found = []
    for _ in range(400):
        drawn = see_through(rng, scene, 0.6, (0.3, 1.0))
        found.append(np.mean((drawn - background)[there] / (target - background)[there]))
    faint = np.array(found)[np.array(found) < 0.999]
    assert 0.5 < len(faint) / len(found) < 0.7
    assert 0.3 <= faint.min() < 0.35 and faint.max() > 0.95


@pytest.mark.parametrize("task", list(PAPER_TASKS))
def test_flaws_stay_inside_the_mask_and_spare_removals(task):
    scene, rng = scene_of(task), np.random.default_rng(1)
    target = np.float32(scene.target)
    inside = scene.mask > 0
    for _ in range(20):
        picture = flawed(rng, target, scene, 1.0)
        np.testing.assert_array_equal(picture[~inside], target[~inside])
        assert picture.min() >= 0 and picture.max() <= 255
        changed = np.abs(picture - target)[inside].mean()
        assert changed == 0 if task is Task.REMOVAL else changed > 1
    np.testing.assert_array_equal(flawed(rng, target, scene, 0.0), target)


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_stronger_flaw_is_further_from_the_target(flaw):
    target = np.float32(scene_of(Task.EXTEND_WITHOUT_PROMPT).target)
    weak, strong = (
        np.abs(flaw(np.random.default_rng(2), target, strength) - target).mean()
        for strength in (0.3, 1.0)
    )
    assert 0 < weak < 0.6 * strong


def test_the_scenes_that_are_learnt_from_are_drawn_so(monkeypatch, tmp_path):
    monkeypatch.setattr(FillPolicy, "encode_image", lambda self, params, images: images)

    def scenes(faint: float, flaws: float = 0.0) -> dict[str, np.ndarray]:
        return scene_latents(
            tmp_path / f"{faint}-{flaws}.safetensors",
            tiny_models.models().editor,
            {},
            count=8,
            size=SIZE,
            seed=1,
            shares={"fill": 1.0},
            faint=faint,
            opacity=(0.0, 0.0),
            flaws=flaws,
        )

    whole = scenes(0.0)
    for other in (scenes(1.0), scenes(0.0, flaws=1.0)):
        np.testing.assert_array_equal(whole["masked_latents"], other["masked_latents"])
        difference = np.abs(whole["latents"] - other["latents"])
        assert (difference.max(axis=(1, 2, 3)) > 0.05).all()
        assert not (difference * (1 - whole["mask"])).any()


def test_the_written_editor_went_through_both_phases(monkeypatch, tmp_path):
    """`test_mini_recipe` trains; here a phase only appends its number to what it starts from."""
    phases, written = {"editor": 1, "editor_flawed": 2}, {}

    def trained(context, name, *, create, **models):
        return {part: 10 * started + phases[name] for part, started in create().items()}

    random = dict.fromkeys(("transformer", "clip", "t5"), np.zeros(1))
    monkeypatch.setattr(base_editor, "_train", trained)
    monkeypatch.setattr(base_editor, "_initialiser", lambda *inputs: (lambda: random, None))
    vae = read_policy(PACKAGE / "mini/models/editor").vae
    monkeypatch.setattr(base_editor, "read_autoencoder", lambda folder: (vae, {}))
    monkeypatch.setattr(
        base_editor, "write_editor_folder", lambda folder, **parts: written.update(parts)
    )
    config = FrozenConfigDict(get_config())
    mesh = make_mesh(data=jax.device_count(), fsdp=1)
    base_editor.train_editor(StageContext("pretrain", config, tmp_path, mesh))
    for part in ("transformer", "text_encoder", "text_encoder_2"):
        assert written[part].params == 12
    assert config.pretrain.editor_flawed.flaws > 0 == config.pretrain.editor.flaws
