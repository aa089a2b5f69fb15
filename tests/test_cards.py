"""The code on the cards, run as it stands in the exported folder: the editor's picture, the
judge's answer."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from diffusers import FluxFillPipeline
from ml_collections import FrozenConfigDict
from PIL import Image
from safetensors.numpy import save_file

from onereward_jax import Editor, Judge
from onereward_jax.chain import StageContext
from onereward_jax.common.config_files import load_config
from onereward_jax.convert.hub import PACKAGE
from onereward_jax.judge import verdict
from onereward_jax.parallel import make_mesh
from onereward_jax.reward import (
    WHOLE,
    JudgeView,
    QueryTemplate,
    packaged_scalar_template,
    packaged_template,
)
from onereward_jax.reward.judge_loader import write_judge_template
from onereward_jax.stages.export.card_origin import origin_of
from onereward_jax.stages.export.diffusers_call import Call, call_of, editing_of
from onereward_jax.stages.export.model_card import DataFacts, editor_card, judge_card

EDITOR, JUDGE = PACKAGE / "mini" / "models" / "editor", PACKAGE / "mini" / "models" / "judge"
MESH = make_mesh(devices=jax.devices()[:1])
FACTS = DataFacts("photographs", 64, {"train": {}, "test": {}}, "people")
BOX = (16, 16, 48, 56)
"""Of the mask: left, upper, right, lower."""


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StageContext:
    """The stage `export` of the mini world."""
    config = load_config(str(PACKAGE.parent / "configs" / "mini.py"))
    config.export.dtype = "float32"
    return StageContext("export", FrozenConfigDict(config), tmp_path_factory.mktemp("run"), MESH)


def photograph(seed: int) -> Image.Image:
    """Smooth blobs of 64 x 64 pixels."""
    noise = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((64, 64), Image.Resampling.BICUBIC)


def run_code(card: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the card's only block of Python in `folder`."""
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    monkeypatch.chdir(folder)
    exec(compile(code, "README.md", "exec"), {})


def write_inputs(folder: Path) -> tuple[Image.Image, Image.Image]:
    photo, mask = photograph(0), Image.new("L", (64, 64))
    mask.paste(255, BOX)
    photo.save(folder / "photo.png")
    mask.save(folder / "mask.png")
    return photo, mask


@pytest.fixture
def latents(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The initial latents that the pipeline draws."""
    drawn, draw = [], FluxFillPipeline.prepare_latents

    def kept(self, *arguments, **named):
        found = draw(self, *arguments, **named)
        drawn.append(found[0])
        return found

    monkeypatch.setattr(FluxFillPipeline, "prepare_latents", kept)
    return drawn


def decibels(one: Image.Image, other: Image.Image) -> float:
    """PSNR inside the mask."""
    pixels = (np.asarray(picture.crop(BOX), np.float64) for picture in (one, other))
    return float(-10 * np.log10(np.mean(np.subtract(*pixels) ** 2) / 255**2))


def test_the_editors_card_paints_what_the_editor_paints(
    context: StageContext, tmp_path: Path, latents: list[torch.Tensor], monkeypatch
) -> None:
    folder = Path(shutil.copytree(EDITOR, tmp_path / "editor"))
    (folder / "editing.json").write_text(json.dumps(editing_of(context)))
    origin, call = origin_of(context, "editor"), call_of(context)
    assert call.true_cfg_scale != 1 and call.paste_back  # so that all of the code is tried
    settings = {"export": {"dtype": "float32"}}
    card = editor_card(origin, call, FACTS, settings, None, weights="ema", alone=False)
    photo, mask = write_inputs(folder)
    run_code(card.text, folder, monkeypatch)
    painted = Image.open(folder / "edited.png")
    outside = np.asarray(mask) == 0
    np.testing.assert_array_equal(np.asarray(painted)[outside], np.asarray(photo)[outside])

    editor = Editor.from_pretrained(folder, mesh=MESH)
    (expected,) = editor(photo, mask, "a red apple", latents=latents[0].numpy())
    (unguided,) = editor(photo, mask, "a red apple", latents=latents[0].numpy(), true_cfg_scale=1.0)
    assert decibels(painted, expected) > 30  # the masked image's latents are drawn there
    assert decibels(painted, unguided) < decibels(painted, expected) - 5


def test_a_transformers_card_opens_it_in_its_base(
    context: StageContext, tmp_path: Path, latents: list[torch.Tensor], monkeypatch
) -> None:
    """In another shape and without true guidance, as for an editor that needs none."""
    folder = Path(shutil.copytree(EDITOR / "transformer", tmp_path / "transformer"))
    call = dataclasses.replace(
        call_of(context), true_cfg_scale=1.0, paste_back=False, num_inference_steps=2
    )
    assert call.packaged and call.pipeline == "mini/models/editor"
    settings = {"export": {"dtype": "float32"}}
    card = editor_card(
        origin_of(context, "editor"), call, FACTS, settings, None, weights="ema", alone=True
    )
    photo, mask = (picture.resize((128, 64)) for picture in write_inputs(folder))
    photo.save(folder / "photo.png")
    mask.save(folder / "mask.png")
    run_code(card.text, folder, monkeypatch)
    painted = Image.open(folder / "edited.png")
    assert painted.size == (96, 48)  # about 64 x 64 pixels
    editor = Editor.from_pretrained(EDITOR, transformer=folder, mesh=MESH)
    (expected,) = editor(
        photo, mask, "a red apple", latents=latents[0].numpy(), width=96, height=48,
        true_cfg_scale=1.0, num_inference_steps=2,
    )  # fmt: skip
    assert decibels(painted, expected) > 30


def test_an_adapters_card_adds_it_to_its_base(
    context: StageContext, tmp_path: Path, latents: list[torch.Tensor], monkeypatch
) -> None:
    rng = np.random.default_rng(0)
    name = "transformer.single_transformer_blocks.0.proj_mlp"
    factors = {"A": rng.normal(size=(4, 128)), "B": rng.normal(size=(512, 4)) / 8}
    tensors = {f"{name}.lora_{key}.weight": np.float32(one) for key, one in factors.items()}
    save_file(tensors, tmp_path / "mine.safetensors")
    call = dataclasses.replace(
        call_of(context), true_cfg_scale=1.0, paste_back=False, num_inference_steps=2
    )
    settings = {"export": {"dtype": "float32"}}
    card = editor_card(
        origin_of(context, "editor"), call, FACTS, settings, None, weights="ema",
        adapter="mine.safetensors",
    )  # fmt: skip
    photo, mask = write_inputs(tmp_path)
    run_code(card.text, tmp_path, monkeypatch)
    painted = Image.open(tmp_path / "edited.png")
    adapted, base = (
        Editor.from_pretrained(EDITOR, adapters=adapters, mesh=MESH)(
            photo, mask, "a red apple", latents=latents[0].numpy(), true_cfg_scale=1.0,
            num_inference_steps=2,
        )[0]
        for adapters in ([(tmp_path / "mine.safetensors", 1.0)], [])
    )  # fmt: skip
    assert decibels(painted, adapted) > 30
    assert decibels(painted, base) < decibels(painted, adapted) - 5


@pytest.mark.parametrize(
    ("template", "view"),
    [
        (packaged_template(), WHOLE),
        (packaged_template(), JudgeView(crop=1.25, source="outlined")),
        (packaged_scalar_template(), JudgeView(source="blanked")),
    ],
    ids=["default", "outlined", "scalar"],
)
def test_the_judges_card_answers_what_the_judge_answers(
    context: StageContext,
    tmp_path: Path,
    monkeypatch,
    capsys,
    template: QueryTemplate,
    view: JudgeView,
) -> None:
    folder = Path(shutil.copytree(JUDGE, tmp_path / "judge"))
    write_judge_template(folder, template.showing(view.source), view)
    settings = {"export": {"dtype": "float32"}, "reward": {"lora": {"rank": 0}}}
    card = judge_card(origin_of(context, "judge"), FACTS, settings, [], folder)
    paths = [folder / "a.png", folder / "b.png"]
    for seed, path in enumerate(paths):
        photograph(seed).save(path)
    photo, mask = write_inputs(folder)
    photo.save(folder / "source.png")
    run_code(card.text, folder, monkeypatch)
    first, second, said = capsys.readouterr().out.strip().splitlines()
    question = {"task": "fill", "dimension": "structure", "prompt": "a red apple"}
    judge = Judge.from_pretrained(folder, mesh=MESH)
    expected = judge.score(paths, paths[::-1], **question, masks=mask, sources=photo)
    found = [float(line.rpartition(" ")[2]) for line in (first, second)]
    np.testing.assert_allclose(found, expected, atol=0.01)  # theirs rounds to grey levels
    assert said.split(" (")[0] == verdict(*map(float, expected)).split(":")[0]


def test_a_card_without_a_known_best_use_says_how_the_run_was_evaluated(
    context: StageContext, tmp_path: Path
) -> None:
    """As for FLUX: no editing.json, 1024 pixels, 512 tokens."""
    local = Path(shutil.copytree(EDITOR, tmp_path / "local"))
    (local / "editing.json").unlink()
    config = context.config.as_configdict()
    config.models.editor = str(local)
    config.models.paste_back = False
    config.data.image_size = 1024
    config.evaluate.num_steps = 50
    config.guidance.true_cfg_scale = 1.0
    flux = dataclasses.replace(context, config=FrozenConfigDict(config))
    assert editing_of(flux) == {"true_cfg_scale": 1.0}
    call = call_of(flux)
    assert isinstance(call, Call) and not call.packaged
    assert (call.side, call.multiple, call.num_inference_steps) == (1024, 16, 50)
    assert call.guidance_scale == call.true_cfg_scale == 1.0
    settings = {"export": {"dtype": "float32"}}
    text = editor_card(
        origin_of(flux, "editor"), call, FACTS, settings, None, weights="ema", alone=False
    ).text
    assert (
        "scale = 1024 /" in text and "guided(" not in text and "a model in a local folder" in text
    )
    assert "solver" not in text
    config.models.solver = "ab2"
    other = dataclasses.replace(context, config=FrozenConfigDict(config))
    assert editing_of(other) == {"true_cfg_scale": 1.0, "solver": "ab2"}
    text = editor_card(
        origin_of(other, "editor"), call_of(other), FACTS, settings, None, weights="ema"
    ).text
    assert "for the solver: `ab2`\nthere, Euler's here" in text
