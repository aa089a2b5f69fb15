"""CLIP vision tower and its preprocessing: parity with transformers; what a folder must have."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from parity import relative_error
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from onereward_jax.convert import CLIP_BOTH, CLIP_VISION, load_params, read_config
from onereward_jax.curation.clip_embedder import ClipEmbedder, read_clip_folder
from onereward_jax.curation.clip_preprocess import ClipPreprocess, read_preprocess
from onereward_jax.models.clip import ClipVisionConfig, ClipVisionModel

QUICK = dict(
    hidden_size=24,
    intermediate_size=40,
    num_hidden_layers=2,
    num_attention_heads=4,
    image_size=32,
    patch_size=8,
    projection_dim=12,
    hidden_act="quick_gelu",
)
GELU = QUICK | dict(
    hidden_size=18, num_hidden_layers=3, num_attention_heads=3, patch_size=16, hidden_act="gelu",
    layer_norm_eps=1e-3,
)  # fmt: skip
TEXT = dict(
    vocab_size=50, hidden_size=16, intermediate_size=20, num_hidden_layers=1, num_attention_heads=2,
    max_position_embeddings=9, projection_dim=12, bos_token_id=1, eos_token_id=2,
)  # fmt: skip
TOLERANCE = 2e-4


def saved_clip(folder, vision, *, both):
    """A random CLIP in transformers' format; returns the torch model."""
    torch.manual_seed(0)
    if both:
        config = transformers.CLIPConfig(
            text_config=TEXT, vision_config=vision, projection_dim=vision["projection_dim"]
        )
        oracle = transformers.CLIPModel(config)
    else:
        config = transformers.CLIPVisionConfig(**vision)
        oracle = transformers.CLIPVisionModelWithProjection(config)
    for parameter in oracle.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    oracle.eval().save_pretrained(folder)
    side = vision["image_size"]
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    )
    processor.save_pretrained(folder)
    return oracle


@pytest.fixture(scope="module", params=[(QUICK, True), (GELU, False)], ids=["both", "vision"])
def clip(request, tmp_path_factory):
    """The folder, the torch oracle."""
    vision, both = request.param
    folder = tmp_path_factory.mktemp("clip")
    return folder, saved_clip(folder, vision, both=both)


def expected(oracle, pixels):
    pixels = torch.tensor(np.moveaxis(np.asarray(pixels), -1, 1))
    with torch.no_grad():
        if isinstance(oracle, transformers.CLIPModel):
            pooled = oracle.vision_model(pixel_values=pixels).pooler_output
            return oracle.visual_projection(pooled).numpy()
        return oracle(pixel_values=pixels).image_embeds.numpy()


def test_embeddings_equal_transformers(clip):
    folder, oracle = clip
    read = read_clip_folder(folder)
    assert read.layout is (CLIP_BOTH if isinstance(oracle, transformers.CLIPModel) else CLIP_VISION)
    pixels = np.random.default_rng(0).normal(size=(3, 32, 32, 3)).astype(np.float32)
    model = ClipVisionModel(read.config)
    abstract = jax.eval_shape(model.init, jax.random.key(0), jnp.asarray(pixels))["params"]
    params = load_params(folder, abstract, read.layout)
    found = jax.jit(lambda x: model.apply({"params": params}, x))(pixels)
    wanted = expected(oracle, pixels)
    assert relative_error(found, wanted) <= TOLERANCE

    unit = wanted / np.linalg.norm(wanted, axis=1, keepdims=True)
    embedder = ClipEmbedder(folder, batch_size=5)  # rounded up to the devices, and padded
    assert embedder.batch_size == 8
    np.testing.assert_allclose(embedder(pixels), unit, atol=TOLERANCE)


@pytest.mark.parametrize("size", [(32, 32), (97, 61), (40, 333), (20, 25), (1000, 31)])
def test_preprocessing_equals_transformers(clip, size):
    folder, _ = clip
    noise = np.random.default_rng(1).integers(0, 256, (*size[::-1], 3), np.uint8)
    picture = Image.fromarray(noise)
    original = CLIPImageProcessorPil.from_pretrained(folder)
    ours = read_preprocess(folder)
    for mode in ("RGB", "L", "P"):
        one = picture.convert(mode)
        wanted = original(one, return_tensors="np")["pixel_values"][0]
        np.testing.assert_allclose(ours(one), np.moveaxis(wanted, 0, -1), atol=1e-5)


def test_sizes_of_old_files_are_integers():
    old = {"size": 224, "crop_size": 224, "resample": 3, "feature_extractor_type": "x"}
    assert ClipPreprocess.from_dict(old) == ClipPreprocess()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resample": 2}, "resample = 2 not supported"),
        ({"do_center_crop": False}, "do_center_crop = False not supported"),
        ({"size": {"height": 3, "width": 4}}, "size = .*'width': 4.* not supported"),
        ({"crop_size": {"height": 300, "width": 300}}, "crop_size 300 is larger than"),
        ({"image_std": [1.0]}, "image_std is not one number per channel"),
    ],
)
def test_preprocessing_that_is_not_implemented_is_named(change, message, tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(change))
    with pytest.raises(ValueError, match=f"preprocessor_config.json: .*{message}"):
        read_preprocess(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "relu"}, "hidden_act 'relu'"),
        ({"patch_size": 7}, "patch_size 7 must divide image_size 32"),
        ({"num_channels": 4}, "num_channels is 4"),
        ({"num_attention_heads": 5}, "num_attention_heads 5 must divide hidden_size 24"),
        ({"model_type": "siglip_vision_model"}, "model_type is 'siglip_vision_model'"),
        ({"model_type": "clip", "vision_config": 3}, "vision_config is 3"),
    ],
)
def test_unsupported_config_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        ClipVisionConfig.from_dict(QUICK | change)


def test_folders_of_other_models_and_sizes_are_refused(clip, tmp_path):
    folder = tmp_path / "clip"
    shutil.copytree(clip[0], folder)
    stated = read_config(folder)
    (folder / "config.json").write_text(json.dumps(stated | {"architectures": ["SiglipModel"]}))
    with pytest.raises(ValueError, match="describes a SiglipModel; expected a CLIPVisionModelWith"):
        read_clip_folder(folder)
    (folder / "config.json").write_text(json.dumps(stated))
    (folder / "preprocessor_config.json").write_text("{}")
    with pytest.raises(ValueError, match="crops to 224 pixels, but the model has image_size 32"):
        read_clip_folder(folder)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(FileNotFoundError, match="preprocessor_config.json"):
        read_clip_folder(folder)
