"""What is no LoRA for FLUX is refused in one sentence that says what it is."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file
from test_lora_names import KOHYA, RANK, SMALL, Spelling, deltas, factors, read, reference, truth

from onereward_jax.convert import FLUX, is_adapter
from onereward_jax.convert.lora_files import adapter_file, read_updates
from onereward_jax.convert.lora_settings import METADATA

LAYER = "transformer_blocks.0.attn.to_q"
LAYERS = {name: value for name, value in reference(SMALL).items() if ".attn." in name}


def zeros(*keys, shape=(2, 2)):
    return {key: np.ones(shape, np.float32) for key in keys}


def plain():
    return Spelling("transformer.").write(LAYERS, SMALL)


def pair(module, inputs=8, outputs=8):
    return zeros(f"{module}.lora_A.weight", shape=(2, inputs)) | zeros(
        f"{module}.lora_B.weight", shape=(outputs, 2)
    )


KINDS = {
    "LoKr": zeros(*(f"lycoris_{n}_attn.lokr_w{i}" for n in range(40) for i in (1, 2))),
    "LoHa": zeros("lora_unet_double_blocks_0_img_attn_qkv.hada_w1_a"),
    "an OFT": zeros("transformer.transformer_blocks.0.attn.to_q.oft_R.weight"),
    "a BOFT": zeros("base_model.model.transformer_blocks.0.attn.to_q.boft_R"),
    "IA3": zeros("base_model.model.transformer_blocks.0.attn.to_q.ia3_l"),
    "GLoRA": zeros("lora_unet_double_blocks_0_img_attn_qkv.a1.weight"),
    "VeRA": zeros("base_model.model.transformer_blocks.0.attn.to_q.vera_lambda_b"),
    "full differences": plain() | zeros("diffusion_model.double_blocks.0.img_attn.proj.diff_b"),
    "a control adapter": plain() | zeros(f"transformer.{LAYER[:-4]}norm_q.weight"),
    "a control adapter (": pair("double_blocks.0.img_attn.qkv")
    | zeros("double_blocks.0.img_attn.norm.query_norm.scale"),
    "an IP-Adapter": zeros("double_blocks.0.processor.ip_adapter_double_stream_k_proj.weight"),
    "a ControlNet": zeros("controlnet_blocks.0.weight"),
    "a textual inversion": zeros("emb_params"),
    "a whole transformer": zeros(f"{LAYER}.weight", f"{LAYER[:-4]}norm_q.weight"),
    "another model, FLUX.2": pair("transformer.double_stream_modulation_img.linear"),
    "another model, Qwen-Image": plain() | pair("transformer.transformer_blocks.0.img_mlp.net.2"),
    "another model, Wan": pair("diffusion_model.blocks.3.cross_attn.q"),
    "another model, SDXL": pair("lora_unet_down_blocks_1_attentions_0_proj_in"),
    "another model, HunyuanVideo": pair("lora_unet_double_blocks_0_img_mlp_fc1"),
    "another model, Z-Image": pair("diffusion_model.layers.0.attention.to_q"),
    "another model: none of its 2": pair(LAYER, 7, 9) | pair("proj_out", 7, 9),
    "only tensors for text encoders": pair("lora_te1_text_model_encoder_layers_0_mlp_fc1"),
    "no adapter": zeros("something.else"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_other_kinds_are_named_in_one_sentence(kind, tmp_path):
    with pytest.raises(ValueError, match=r"any name\.safetensors") as error:
        read(KINDS[kind], tmp_path)
    message = str(error.value)
    assert kind in message and "\n" not in message and len(message) < 450


def test_long_lists_of_misfits_are_cut(tmp_path):
    tensors = plain()
    for number in range(100):
        tensors |= pair(f"transformer_blocks.{number + 9}.attn.to_q")
    with pytest.raises(ValueError, match="transformer_blocks.10.attn.to_q: in the file") as error:
        read(tensors, tmp_path)
    lines = str(error.value).splitlines()
    assert len(lines) == 22 and lines[-1].strip() == "and 80 more"


SETTINGS = {
    "[]": "expected a JSON object",
    "{": "is not JSON",
    "[" * 100_000: "is not JSON",
    '{"transformer.lora_alpha": "4"}': "lora_alpha is '4', a number expected",
    '{"transformer.lora_alpha": NaN}': "lora_alpha is nan, a number expected",
    '{"transformer.lora_alpha": 1e99}': "lora_alpha is 1e\\+99, a number expected",
    '{"transformer.lora_alpha": true}': "lora_alpha is True, a number expected",
    '{"transformer.lora_alpha": 0}': "lora_alpha is 0: the adapter would have no effect",
    '{"transformer.r": 2.5}': "r is 2.5, a positive whole number expected",
    '{"transformer.r": 4}': "lora_A has rank 3, but the settings state 4",
    '{"transformer.alpha_pattern": [1]}': r"alpha_pattern is \[1\], expected a JSON object",
    '{"transformer.alpha_pattern": {"(": 1}}': "alpha_pattern has '\\('",
    '{"transformer.alpha_pattern": {"a": null}}': "alpha_pattern of 'a' is null",
    '{"transformer.use_rslora": "no"}': "use_rslora is 'no', true or false expected",
    '{"transformer.use_dora": true}': "use_dora is set, but the file has no lora_magnitude",
    '{"transformer.peft_type": "LOHA"}': "peft_type is 'LOHA'; only LORA is read",
    '{"transformer.init_lora_weights": "pissa"}': "which changes the base, too",
    '{"transformer.modules_to_save": ["x_embedder"]}': "whole layers beside an adapter",
}


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda text: text[:60])
def test_odd_settings_are_named(settings, tmp_path):
    with pytest.raises(ValueError, match=SETTINGS[settings]):
        read(plain(), tmp_path, **{METADATA: settings})


@pytest.mark.parametrize(
    "odd, words",
    [
        ({"alpha": np.array(0, np.float32)}, "alpha is 0"),
        ({"alpha": np.array(np.nan, np.float32)}, "alpha has NaN or infinity"),
        ({"lora_A.weight": np.full((RANK, 32), np.inf, np.float32)}, "lora_A.weight has NaN"),
        ({"lora_A.weight": np.zeros((0, 32), np.float32)}, r"lora_A \(0, 32\)"),
        ({"lora_A.weight": np.zeros((RANK, 32), np.int8)}, "dtype I8 is not one of"),
        ({"lora_down.weight": np.zeros((RANK, 32), np.float32)}, "has it twice"),
        ({"lora_A.other.weight": np.zeros(1, np.float32)}, "has it twice"),
        ({"bias": np.zeros(1, np.float32)}, "bias: not a lora_A"),
    ],
)
def test_odd_tensors_are_named(odd, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        read(
            plain() | {f"transformer.{LAYER}.{key}": value for key, value in odd.items()}, tmp_path
        )


def test_text_encoders_are_left_out_with_one_warning(tmp_path, caplog):
    beside = (
        pair("lora_te1_text_model_encoder_layers_0_mlp_fc1")
        | pair("lora_te3_encoder_block_0_layer_0_SelfAttention_k")
        | pair("text_encoder.text_model.encoder.layers.0.self_attn.q_proj")
        | pair("text_encoders.t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.k")
        | zeros("bundle_emb.my_word.clip_l")
    )
    idle = {"diffusion_model.double_blocks.0.img_attn.proj.diff_b": np.zeros(3, np.float32)}
    found = factors(read(plain() | beside | idle, tmp_path))
    assert found.keys() == LAYERS.keys()
    (warning,) = caplog.messages
    assert warning.endswith("left out: 4 for CLIP and 4 for T5 and 1 for new words")


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-5)


def test_other_dtypes_convolutions_and_fewer_settings(tmp_path):
    layers = {name: (np.round(a), np.round(b), np.float32(6)) for name, (a, b, _) in LAYERS.items()}
    expected = deltas(truth(layers))
    tensors = Spelling("transformer.", KOHYA).write(layers, SMALL)
    for dtype in (jnp.bfloat16, np.float16, np.float64, jnp.float8_e4m3fn, jnp.float8_e5m2):
        kept = {key: value.astype(dtype) for key, value in tensors.items()}
        assert_equal(deltas(factors(read(kept, tmp_path))), expected)
    locon = {
        key: value if "alpha" in key else value[..., None, None] for key, value in tensors.items()
    }
    for key in tensors:
        if key.endswith("alpha"):
            locon[key] = np.array(6, np.int64)
            locon[key.replace("alpha", "lora_mid.weight")] = np.eye(RANK, dtype=np.float32)[
                ..., None, None
            ]
    assert_equal(deltas(factors(read(locon, tmp_path))), expected)

    tensors = Spelling("transformer.").write(layers, SMALL)
    settings = {"r": 3, "lora_alpha": 4, "use_rslora": True, "alpha_pattern": {r"0\.attn\.to_k": 2}}
    told = {METADATA: json.dumps({f"transformer.{key}": value for key, value in settings.items()})}
    found = factors(read(tensors, tmp_path, **told))
    for name, (_, _, scale) in found.items():
        alpha = 2 if name.endswith("0.attn.to_k") else 4
        np.testing.assert_allclose(scale, alpha / RANK**0.5)


def test_a_folder_may_have_one_file_of_any_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="it has no .safetensors file"):
        adapter_file(tmp_path)
    save_file(plain(), tmp_path / "my_style_000002000.safetensors")
    assert is_adapter(tmp_path) and is_adapter(tmp_path / "my_style_000002000.safetensors")
    assert read_updates(adapter_file(tmp_path), SMALL, FLUX)
    save_file(plain(), tmp_path / "my_style_000004000.safetensors")
    with pytest.raises(ValueError, match="(?s)several files, name one .*4000.safetensors"):
        adapter_file(tmp_path)
    save_file(zeros(f"{LAYER}.weight"), tmp_path / "pytorch_lora_weights.safetensors")
    assert adapter_file(tmp_path).name == "pytorch_lora_weights.safetensors"
