"""The editor on picture files equals FluxFillPipeline under true guidance, stage by stage."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch_pipeline
from diffusers import FluxFillPipeline
from peft import LoraConfig
from PIL import Image
from safetensors.numpy import save_file

from onereward_jax import Editor
from onereward_jax.convert.lora_files import ADAPTER_FILE
from onereward_jax.inference.picture_io import image_pixels, mask_pixels
from onereward_jax.parallel import make_mesh
from onereward_jax.policy.generate import seeded_noise

STEPS = 4
TOLERANCE = {"rtol": 2e-4, "atol": 2e-4}
PROMPTS = ["a red apple on the table", "a small green frog beside the big blue vase, twice"]
NEGATIVES = ["nsfw", "remove"]
PIXELS = image_pixels, mask_pixels


def picture(width: int, height: int, seed: int, mode: str = "RGB") -> Image.Image:
    """Random blobs over the whole range."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


@dataclasses.dataclass(frozen=True)
class World:
    """A pipeline, and the editor read from its folder."""

    pipeline: FluxFillPipeline
    editor: Editor


@pytest.fixture(scope="module")
def worlds(tmp_path_factory) -> dict[bool, World]:
    found = {}
    for embeds in (False, True):
        folder = tmp_path_factory.mktemp("pipeline")
        pipeline = torch_pipeline.whole_pipeline(embeds)
        pipeline.save_pretrained(folder)
        mesh = make_mesh(devices=jax.devices()[:1])
        found[embeds] = World(pipeline, Editor.from_pretrained(folder, mesh=mesh))
    return found


@dataclasses.dataclass(frozen=True)
class Case:
    """An edit. `size` is (height, width) as asked for; None where the picture decides."""

    guidance_embeds: bool
    images: tuple[Image.Image, ...]
    masks: tuple[Image.Image, ...]
    size: tuple[int, int] | None
    true_cfg_scale: float
    guidance_scale: float
    strength: float

    @property
    def edited_size(self) -> tuple[int, int]:
        height, width = self.size or self.images[0].size[::-1]
        return height - height % 16, width - width % 16


CASES = {
    "two pictures of different sizes, guided twice": Case(
        True,
        (picture(90, 60, 0), picture(45, 30, 1)),
        (picture(90, 60, 2, "L"), picture(60, 40, 3)),
        (35, 50),
        true_cfg_scale=4.0,
        guidance_scale=3.5,
        strength=1.0,
    ),
    "as large as the picture, no guidance": Case(
        False, (picture(55, 39, 4),), (picture(110, 78, 5, "1"),), None, 1.0, 1.0, 0.6
    ),
    "as large as the picture, guided": Case(
        False, (picture(55, 39, 4),), (picture(55, 39, 6, "L"),), None, 2.5, 30.0, 1.0
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_every_stage_equals_the_pipeline(worlds: dict[bool, World], name: str) -> None:
    case = CASES[name]
    pipeline, editor = (world := worlds[case.guidance_embeds]).pipeline, world.editor
    size, batch = case.edited_size, len(case.images)
    named = {} if case.size is None else dict(zip(("height", "width"), case.size))
    pixels = np.stack([image_pixels(one, size) for one in case.images])
    masks = np.stack([mask_pixels(one, size) for one in case.masks])
    theirs = dict(zip(("height", "width"), case.size or case.images[0].size[::-1]))
    for processor, pictures, ours in (
        (pipeline.image_processor, case.images, pixels),
        (pipeline.mask_processor, case.masks, masks),
    ):
        expected = processor.preprocess(list(pictures), **theirs).numpy().transpose(0, 2, 3, 1)
        np.testing.assert_array_equal(ours, expected)

    sigmas = editor.functions.sigmas(STEPS, size, case.strength)
    vae, start = editor.params.vae, seeded_noise(editor.functions, np.arange(batch) + 7, size)
    if case.strength < 1:
        start = jax.jit(editor.functions.start_from_source)(vae, pixels, start, sigmas[0])
    steps = []
    common = dict(
        image=list(case.images),
        prompt=PROMPTS[:batch],
        negative_prompt=NEGATIVES[:batch],
        num_inference_steps=STEPS,
        true_cfg_scale=case.true_cfg_scale,
        guidance_scale=case.guidance_scale,
        strength=case.strength,
    )
    reference = torch_pipeline.run_guided(
        pipeline, mask_image=list(case.masks), latents=start, output_type="np", **common, **theirs
    )
    common |= dict(mask=list(case.masks), **named)
    # the seed alone gives the starting latents that the reference was given
    images = editor(
        **common, seed=7, output_type="np", on_step=lambda _, latents: steps.append(latents)
    )

    np.testing.assert_allclose(sigmas, reference.sigmas, rtol=1e-6)
    condition = editor.steps.condition(vae, pixels, masks)
    np.testing.assert_allclose(condition.tokens, reference.condition, **TOLERANCE)
    assert len(steps) == len(reference.steps) == len(sigmas) - 1
    assert np.abs(reference.steps[-1] - start).max() > 0.1, "the network must move the latents"
    np.testing.assert_allclose(np.stack(steps), np.stack(reference.steps), **TOLERANCE)
    assert images.shape == (batch, *size, 3) and np.ptp(images) == 1.0
    np.testing.assert_allclose(images, reference.images, **TOLERANCE)

    latents = np.asarray(start)
    ours = np.stack(editor(**common, latents=latents)).astype(int)
    levels = np.abs(ours - np.stack(pipeline.numpy_to_pil(reference.images)))
    assert (levels <= 1).mean() >= 0.999
    final = editor(**common, latents=latents, output_type="latent")
    np.testing.assert_allclose(final, reference.steps[-1], **TOLERANCE)


def test_a_sample_does_not_depend_on_its_batch_or_its_devices(worlds, tmp_path) -> None:
    """One picture alone, as a path, grey, on a mesh of more devices than samples."""
    folder = tmp_path / "editor"
    worlds[True].pipeline.save_pretrained(folder)
    wide = Editor.from_pretrained(folder, mesh=make_mesh(2, 1, 1, devices=jax.devices()[:2]))
    image, mask = picture(48, 32, 8, "L"), picture(48, 32, 9, "L")
    image.save(tmp_path / "grey.png")
    options = dict(num_inference_steps=2, output_type="np")
    both = worlds[True].editor([image, mask], mask, PROMPTS, seed=3, **options)
    alone = wide(tmp_path / "grey.png", mask, PROMPTS[0], seed=3, **options)
    second = wide(mask, mask, PROMPTS[1], seed=[4], **options)
    np.testing.assert_allclose(np.concatenate([alone, second]), both, **TOLERANCE)


def test_another_transformer_and_adapters_take_part(worlds, tmp_path: Path) -> None:
    """As if a folder had been written with the transformer, and the LoRAs added to its kernels."""
    pipeline, one = worlds[True].pipeline, make_mesh(devices=jax.devices()[:1])
    pipeline.save_pretrained(tmp_path / "editor")
    torch.manual_seed(1)
    other = torch_pipeline.whole_pipeline(True).transformer
    other.save_pretrained(tmp_path / "other")
    for name, rank in (("first", 2), ("second", 3)):
        settings = LoraConfig(
            r=rank, lora_alpha=4, init_lora_weights=False, target_modules="all-linear"
        )
        other.add_adapter(settings, adapter_name=name)
        other.save_lora_adapter(tmp_path / name, adapter_name=name)
    other.set_adapters(["first", "second"], [0.5, -1.0])
    adapters = [(tmp_path / "first", 0.5), (tmp_path / "second" / ADAPTER_FILE, -1.0)]
    ours = Editor.from_pretrained(
        tmp_path / "editor", transformer=tmp_path / "other", adapters=adapters, mesh=one
    )
    arguments = dict(prompt=PROMPTS[0], num_inference_steps=2, true_cfg_scale=1.0)
    image, mask = picture(48, 32, 0), picture(48, 32, 1, "L")
    start = np.asarray(seeded_noise(ours.functions, np.arange(1), (32, 48)))
    pipeline = FluxFillPipeline(**pipeline.components | {"transformer": other})
    reference = torch_pipeline.run_guided(
        pipeline, image=[image], mask_image=[mask], latents=start, output_type="np",
        negative_prompt=["nsfw"], guidance_scale=1.0, strength=1.0, height=32, width=48,
        **arguments | {"prompt": [PROMPTS[0]]},
    )  # fmt: skip
    found = ours(image, mask, latents=start, output_type="np", **arguments)
    np.testing.assert_allclose(found, reference.images, **TOLERANCE)
    plain = worlds[True].editor(image, mask, latents=start, output_type="np", **arguments)
    assert np.abs(found - plain).max() > 0.1
    with pytest.raises(ValueError, match="transformer: .*first is a LoRA"):
        Editor.from_pretrained(tmp_path / "editor", transformer=tmp_path / "first")
    with pytest.raises(FileNotFoundError, match="lora: there is no file or folder .*third"):
        Editor.from_pretrained(tmp_path / "editor", adapters=[(tmp_path / "third", 1.0)])
    # found before weights are read: there are none
    (tmp_path / "other" / "diffusion_pytorch_model.safetensors").unlink()
    save_file({"other.lora_A.weight": np.zeros((1, 2))}, tmp_path / "wrong.safetensors")
    with pytest.raises(ValueError, match="wrong.safetensors does not fit the model"):
        Editor.from_pretrained(
            tmp_path / "editor",
            transformer=tmp_path / "other",
            adapters=[(tmp_path / "wrong.safetensors", 1.0)],
        )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"mask": picture(30, 48, 0)}, "mask of 30x48 .* than the image of 48x32"),
        (
            {"mask": Image.new("L", (48, 32), 127)},
            "the mask is empty: its greatest value is 127",
        ),
        ({"image": picture(15, 10, 0), "mask": picture(15, 10, 0)}, "too small .* at least 16"),
        ({"image": [picture(48, 32, 0), picture(64, 48, 0)]}, "sizes, 48x32 and 64x48 pixels"),
        ({"prompt": PROMPTS, "negative_prompt": ["nsfw"] * 3}, "prompt: 2 values for a batch of 3"),
        ({"seed": [1, 2]}, "seed has 2 numbers for a batch of 1"),
        ({"latents": np.zeros((1, 6, 4), np.float32)}, r"\(1, 6, 16\) expected"),
        ({"output_type": "pt"}, "output_type 'pt' is not one of pil, np, latent"),
        ({"strength": 0.0}, "strength 0.0 leaves none of 50 steps"),
    ],
)
def test_mistakes_are_named(worlds: dict[bool, World], changed: dict, message: str) -> None:
    arguments = dict(image=picture(48, 32, 0), mask=picture(48, 32, 1), prompt="a hat") | changed
    with pytest.raises(ValueError, match=message):
        worlds[True].editor(**arguments)


def test_files_that_cannot_be_read_are_named(worlds: dict[bool, World], tmp_path: Path) -> None:
    editor, good = worlds[True].editor, picture(48, 32, 0)
    (tmp_path / "broken.png").write_text("no picture")
    with pytest.raises(ValueError, match="broken.png is not a readable image"):
        editor(tmp_path / "broken.png", good, "a hat")
    good.save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:200])
    with pytest.raises(ValueError, match="half.png is not a readable image"):
        editor(good, tmp_path / "half.png", "a hat")
    with pytest.raises(FileNotFoundError, match="there is no file .*none.png"):
        editor(good, tmp_path / "none.png", "a hat")


@pytest.mark.parametrize("part", ["transformer", "tokenizer", "tokenizer_2", "scheduler"])
def test_folders_that_lack_a_part_are_named(worlds, tmp_path: Path, part: str) -> None:
    worlds[True].pipeline.save_pretrained(tmp_path)
    (tmp_path / part).rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match=f"{part}.* does not exist"):
        Editor.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="model: there is no folder .*nowhere"):
        Editor.from_pretrained(tmp_path / "nowhere")


def test_long_prompts_are_cut_with_a_warning(worlds: dict[bool, World], caplog) -> None:
    """As long as the folder's tokenizers say, 14 and 24 tokens here, 512 and 77 in FLUX."""
    image = picture(48, 32, 0)
    prompt = " ".join(PROMPTS * 2)
    worlds[False].editor(image, image, prompt, num_inference_steps=1, output_type="latent")
    for name, length in (("T5", torch_pipeline.T5_LENGTH), ("CLIP", torch_pipeline.CLIP_LENGTH)):
        assert f"{name} reads only the first {length} of" in caplog.text


def test_ab2_takes_the_steps_of_the_batched_sampler(worlds: dict[bool, World]) -> None:
    editor, pictures = worlds[False].editor, (picture(32, 32, 4), picture(32, 32, 5, "1"))
    settings = {"true_cfg_scale": 1.0, "num_inference_steps": STEPS, "output_type": "latent"}
    euler, found = (editor(*pictures, PROMPTS[0], solver=one, **settings) for one in (None, "ab2"))
    image, mask = (jnp.asarray(read(one, (32, 32)))[None] for read, one in zip(PIXELS, pictures))
    functions = dataclasses.replace(editor.functions, solver="ab2")
    expected = functions.denoise(
        editor.params.transformer,
        seeded_noise(functions, np.arange(1), (32, 32)),
        functions.encode_condition(editor.params.vae, image, mask),
        editor._embeds(PROMPTS[:1]),
        None,
        functions.sigmas(STEPS, (32, 32)),
        0,
        STEPS,
    )
    np.testing.assert_allclose(found, expected, **TOLERANCE)
    assert np.abs(found - euler).max() > 10 * TOLERANCE["atol"]
    with pytest.raises(ValueError, match="solver is 'heun': choose one of euler, ab2"):
        editor(*pictures, PROMPTS[0], solver="heun")
