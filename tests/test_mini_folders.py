"""Small tokenizers, and whole model folders as diffusers and transformers open them."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import FluxFillPipeline
from PIL import Image
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoTokenizer,
    CLIPTextConfig,
    CLIPTextModel,
    Qwen2_5_VLForConditionalGeneration,
    T5Config,
    T5EncoderModel,
)

from onereward_jax.convert import (
    FLUX,
    QWEN2_5_VL,
    VAE,
    Weights,
    load_params,
    load_tokenizer,
    load_tokenizers,
    preprocessor_config,
    read_config,
    read_preprocessor,
    write_editor_folder,
    write_judge_folder,
)
from onereward_jax.mini.mini_tokenizers import (
    QWEN_SPECIAL_TOKENS,
    clip_tokenizer,
    qwen_tokenizer,
    t5_tokenizer,
)
from onereward_jax.models.flux import FluxConfig, FluxTransformer
from onereward_jax.models.qwen2_5_vl import Qwen2_5_VL, Qwen2_5_VLConfig, init_params
from onereward_jax.models.vae import AutoencoderKL, VaeConfig
from onereward_jax.reward.image_preprocess import ImageProcessor

NAMES = "apple banana cherry rocket hat star dog cat bicycle trumpet crown violin snail".split()
TEXTS = (
    [f"a {colour} {name} on the left" for name in NAMES for colour in ("red", "blue")]
    + [f'the word "{name.upper()}" in green' for name in NAMES]
    + ["high-definition, perfect composition", "remove"]
    + [
        f"Task: {task}. Dimension: {dimension}. Is the first image better than the second?"
        for task in ("image fill", "object removal")
        for dimension in ("structure", "consistency", "aesthetics")
    ]
)
BUILDERS = {"clip": clip_tokenizer, "t5": t5_tokenizer, "qwen": qwen_tokenizer}
CLASSES = {"clip": "CLIPTokenizer", "t5": "T5Tokenizer", "qwen": "Qwen2Tokenizer"}
FLUX_CONFIG = dict(
    in_channels=2 * 16 + 16,  # noisy latents, masked image, mask of (2 x 2) latent pixels
    out_channels=16,
    num_layers=1,
    num_single_layers=1,
    attention_head_dim=16,
    num_attention_heads=2,
    joint_attention_dim=16,
    pooled_projection_dim=16,
    guidance_embeds=True,
    axes_dims_rope=[4, 6, 6],
    patch_size=1,
)
SCHEDULER = dict(num_train_timesteps=1000, shift=3.0, use_dynamic_shifting=True)


@pytest.fixture(scope="module")
def tokenizers():
    return {name: build(TEXTS) for name, build in BUILDERS.items()}


@pytest.mark.parametrize("name", BUILDERS)
def test_tokenizer_is_learned_the_same_and_loads_by_its_class(tokenizers, tmp_path, name):
    tokenizer = tokenizers[name]
    assert 200 < len(tokenizer) < 1100 or (name == "t5" and len(tokenizer) > 100)
    again = BUILDERS[name](TEXTS[::-1])
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()

    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert type(loaded).__name__ == CLASSES[name]
    assert loaded.get_vocab() == tokenizer.get_vocab()
    for text in [*TEXTS, "unheard-of Zebra 42!", "naïve 你好 🙂\n", ""]:
        assert loaded(text).input_ids == tokenizer(text).input_ids
    padded = loaded("remove", padding="max_length", max_length=20)
    assert len(padded.input_ids) == 20
    assert padded.input_ids[-1] == loaded.pad_token_id


def test_unknown_words_fall_back_to_letters_or_bytes(tokenizers):
    clip, t5, qwen = tokenizers.values()
    text = 'a zebra, xylophone & "QUIZ" [42]'
    assert t5.unk_token_id not in t5(text).input_ids
    assert t5.decode(t5(text).input_ids, skip_special_tokens=True) == text
    inner = clip(text + " 你好").input_ids[1:-1]
    assert not set(inner) & set(clip.all_special_ids)
    for wide in (text, "naïve 你好 🙂\n\tx"):
        assert qwen.decode(qwen(wide).input_ids) == wide


def test_known_words_are_single_tokens_and_drawn_words_are_spelled(tokenizers):
    clip, t5, qwen = tokenizers.values()
    text = "a red trumpet on the left"
    assert len(t5(text).input_ids) == len(text.split()) + 1
    assert len(clip(text).input_ids) == len(text.split()) + 2
    assert t5.convert_ids_to_tokens(t5('"STAR"').input_ids) == [*'▁"STAR"', "</s>"]
    assert qwen.convert_ids_to_tokens(qwen('"STAR"').input_ids) == [*'"STAR"']


def test_special_tokens_are_where_the_models_expect_them(tokenizers):
    clip, t5, qwen = tokenizers.values()
    ids = clip("a hat").input_ids
    assert (ids[0], ids[-1]) == (clip.bos_token_id, clip.eos_token_id)
    assert clip.eos_token_id == len(clip) - 1, "CLIP pools at the highest id"
    assert (t5.pad_token_id, t5.eos_token_id) == (0, 1)
    assert t5("a hat").input_ids[-1] == 1
    for token in (*QWEN_SPECIAL_TOKENS, "Yes", "No"):
        assert qwen(token).input_ids == [qwen.convert_tokens_to_ids(token)]
    text = "<|im_start|>assistant\nYes<|im_end|>"
    assert qwen.convert_ids_to_tokens(qwen(text).input_ids)[-2:] == ["Yes", "<|im_end|>"]


def random_params(abstract):
    """A tree of that shape filled with small noise."""
    rng = np.random.default_rng(0)
    fill = lambda leaf: 0.1 * jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype)
    return jax.tree.map(fill, nn.meta.unbox(abstract))


@pytest.fixture(scope="module")
def editor(tokenizers, tmp_path_factory):
    """(folder, transformer params, vae params): models of ours, text encoders copied from torch."""
    root = tmp_path_factory.mktemp("editor")
    clip, t5, _ = tokenizers.values()
    CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(clip),
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            bos_token_id=clip.bos_token_id,
            eos_token_id=clip.eos_token_id,
        )
    ).save_pretrained(root / "clip")
    T5EncoderModel(
        T5Config(vocab_size=len(t5), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    ).save_pretrained(root / "t5")
    t5.save_pretrained(root / "t5_tokenizer")

    flux = FluxTransformer(FluxConfig.from_dict(FLUX_CONFIG))
    ids = jnp.zeros((2, 3))
    tokens, row = jnp.zeros((1, 2, 16)), jnp.zeros((1, 16))
    hidden = jnp.zeros((1, 2, FLUX_CONFIG["in_channels"]))
    transformer = random_params(
        jax.eval_shape(
            lambda: flux.init(
                jax.random.key(0), hidden, tokens, row, jnp.zeros(1), ids, ids, jnp.zeros(1)
            )
        )["params"]
    )
    vae_config = VaeConfig(block_out_channels=(8, 8), norm_num_groups=4, latent_channels=4)
    images = jnp.zeros((1, 4, 4, 3))
    vae = random_params(
        jax.eval_shape(lambda: AutoencoderKL(vae_config).init(jax.random.key(0), images))["params"]
    )
    write_editor_folder(
        root / "editor",
        transformer=Weights(transformer, FLUX_CONFIG, dtype=jnp.bfloat16),
        vae=Weights(vae, vae_config.to_dict()),
        text_encoder=root / "clip",
        text_encoder_2=root / "t5",
        tokenizer=clip,
        tokenizer_2=root / "t5_tokenizer",
        scheduler=SCHEDULER,
    )
    return root / "editor", transformer, vae


def test_diffusers_opens_and_runs_the_editor_folder(editor):
    folder, transformer, _ = editor
    pipeline = FluxFillPipeline.from_pretrained(folder, local_files_only=True)
    assert pipeline.scheduler.config.shift == SCHEDULER["shift"]
    weight = pipeline.transformer.state_dict()["x_embedder.weight"].float().numpy()
    expected = transformer["x_embedder"]["kernel"].T.astype(jnp.bfloat16)
    np.testing.assert_array_equal(weight, expected.astype(jnp.float32))
    result = pipeline(
        prompt="a red hat",
        image=Image.new("RGB", (16, 16)),
        mask_image=Image.new("L", (16, 16), 255),
        height=16,
        width=16,
        num_inference_steps=1,
        max_sequence_length=12,
        output_type="np",
    )
    assert result.images.shape == (1, 16, 16, 3)
    assert np.isfinite(result.images).all()


def test_the_editor_folder_reads_back(editor, tokenizers):
    folder, transformer, vae = editor
    found = load_params(folder / "vae", vae, VAE)
    jax.tree.map(np.testing.assert_array_equal, found, vae)
    found = load_params(folder / "transformer", transformer, FLUX, dtype=jnp.bfloat16)
    expected = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), transformer)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    both = load_tokenizers(folder)
    for loaded, name in ((both.clip, "clip"), (both.t5, "t5")):
        assert loaded.get_vocab() == tokenizers[name].get_vocab()


def test_a_missing_component_leaves_nothing_behind(editor, tmp_path):
    folder, transformer, vae = editor
    with pytest.raises(FileNotFoundError, match="folder .*nowhere does not exist"):
        write_editor_folder(
            tmp_path / "editor",
            transformer=folder / "transformer",
            vae=folder / "vae",
            text_encoder=folder / "text_encoder",
            text_encoder_2=tmp_path / "nowhere",
            tokenizer=folder / "tokenizer",
            tokenizer_2=folder / "tokenizer_2",
            scheduler=SCHEDULER,
        )
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError, match="nowhere/tokenizer_config.json does not exist"):
        load_tokenizer(tmp_path / "nowhere")


@pytest.fixture(scope="module")
def judge(tokenizers, tmp_path_factory):
    """(folder, params) of a tiny judge made by us alone."""
    qwen = tokenizers["qwen"]
    token_ids = {
        f"{name}_token_id": qwen.convert_tokens_to_ids(f"<|{token}|>")
        for name, token in (
            ("image", "image_pad"),
            ("video", "video_pad"),
            ("vision_start", "vision_start"),
            ("vision_end", "vision_end"),
        )
    }
    config = {
        **token_ids,
        "tie_word_embeddings": False,
        "text_config": {
            "model_type": "qwen2_5_vl_text",
            "vocab_size": len(qwen),
            "hidden_size": 32,
            "intermediate_size": 24,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-6,
            "initializer_range": 0.02,
            "bos_token_id": qwen.pad_token_id,
            "eos_token_id": qwen.eos_token_id,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [1, 1, 2],
                "rope_theta": 1e4,
            },
        },
        "vision_config": {
            "model_type": "qwen2_5_vl_vision",
            "depth": 1,
            "hidden_act": "silu",
            "hidden_size": 16,
            "in_channels": 3,
            "initializer_range": 0.02,
            "intermediate_size": 20,
            "num_heads": 2,
            "patch_size": 14,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
            "tokens_per_second": 2,
            "out_hidden_size": 32,
            "window_size": 56,
            "fullatt_block_indexes": [0],
        },
    }
    model = Qwen2_5_VL(Qwen2_5_VLConfig.from_dict(config))
    params = random_params(jax.eval_shape(lambda: init_params(model, jax.random.key(0))))
    preprocessor = preprocessor_config(
        config["vision_config"], min_pixels=56 * 56, max_pixels=84 * 84
    )
    folder = tmp_path_factory.mktemp("judge") / "judge"
    write_judge_folder(
        folder, model=Weights(params, config), tokenizer=qwen, preprocessor=preprocessor
    )
    return folder, params


def test_transformers_opens_and_runs_the_judge_folder(judge):
    """The parts of AutoProcessor one by one: its video half would ask for torchvision."""
    folder, params = judge
    assert AutoConfig.from_pretrained(folder).model_type == "qwen2_5_vl"
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    image_processor = AutoImageProcessor.from_pretrained(folder)
    content = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "Better?"}]
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    one = "<|vision_start|><|image_pad|><|vision_end|>"
    assert text == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\n{one}{one}Better?<|im_end|>\n<|im_start|>assistant\n"
    )
    images = image_processor([Image.new("RGB", (64, 64))] * 2, return_tensors="pt")
    assert images["image_grid_thw"].tolist() == [[1, 4, 4]] * 2
    inputs = tokenizer(text.replace("<|image_pad|>", "<|image_pad|>" * 4), return_tensors="pt")
    is_image = inputs["input_ids"] == model.config.image_token_id
    with torch.no_grad():
        logits = model(**inputs, **images, mm_token_type_ids=is_image.int()).logits
    assert logits.shape == (*inputs["input_ids"].shape, len(tokenizer))
    assert torch.isfinite(logits).all()

    found = load_params(folder, params, QWEN2_5_VL)
    jax.tree.map(np.testing.assert_array_equal, found, params)


def test_judge_files_are_copied_from_a_folder_and_both_preprocessor_forms_read(judge, tmp_path):
    folder, params = judge
    preprocessor = read_preprocessor(folder)
    assert preprocessor["max_pixels"] == 84 * 84
    write_judge_folder(
        tmp_path / "copy",
        model=Weights(params, read_config(folder)),
        tokenizer=folder,
        preprocessor=preprocessor,
    )
    for path in folder.iterdir():
        assert (tmp_path / "copy" / path.name).read_bytes() == path.read_bytes()

    # what transformers 5 writes: nested in processor_config.json, areas under "size"
    (tmp_path / "new").mkdir()
    image_processor = AutoImageProcessor.from_pretrained(folder).to_dict()
    assert "min_pixels" not in image_processor
    path = tmp_path / "new" / "processor_config.json"
    path.write_text(json.dumps({"image_processor": image_processor}, default=int))
    again = read_preprocessor(tmp_path / "new")
    assert ImageProcessor.from_dict(again) == ImageProcessor.from_dict(preprocessor)
    path.write_text("{}")
    with pytest.raises(FileNotFoundError, match="preprocessor_config.json does not exist"):
        read_preprocessor(tmp_path / "new")
