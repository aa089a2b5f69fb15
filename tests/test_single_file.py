"""The transformer in a single file: names of the original release, 8 bits, prefixes, refusals."""

import functools
import json
import re
import shutil

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import FluxTransformer2DModel
from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers
from safetensors.numpy import save_file

from onereward_jax.convert import FLUX, load_params, read_single_file, single_file_config
from onereward_jax.convert.bfl_names import BLOCK_MODULES, MODULES
from onereward_jax.convert.safetensors_reader import find_tensors, read_header
from onereward_jax.convert.single_file_writer import rewrite_single_file, write_single_file
from onereward_jax.convert.tensor_names import unbox
from onereward_jax.models.flux import FluxConfig, FluxTransformer
from onereward_jax.parallel import logical_shardings, make_mesh

FP8 = "float8_e4m3fn"
SIZES = dict(
    in_channels=384,
    out_channels=64,
    num_layers=2,
    num_single_layers=3,
    attention_head_dim=16,
    num_attention_heads=2,
    joint_attention_dim=24,
    pooled_projection_dim=12,
    guidance_embeds=True,
    axes_dims_rope=(4, 6, 6),
)
CONFIG = {"_class_name": FLUX.architecture, "patch_size": 1, **SIZES, "axes_dims_rope": [4, 6, 6]}


@functools.cache
def abstract():
    config = FluxConfig.from_dict(SIZES)
    ids, number = jnp.zeros((1, 3)), jnp.zeros(1)
    image, text = jnp.zeros((1, 1, 384)), jnp.zeros((1, 1, 24))
    model = FluxTransformer(config)
    boxed = jax.eval_shape(
        lambda: model.init(
            jax.random.key(0), image, text, jnp.zeros((1, 12)), number, ids, ids, number
        )
    )
    return boxed["params"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A transformer in float32 as diffusers writes it."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("single") / "transformer"
    FluxTransformer2DModel(**SIZES).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def params(folder):
    return load_params(folder, abstract(), FLUX)


@pytest.fixture(scope="module")
def original(folder, tmp_path_factory):
    """The same in a single file, in float32."""
    path = tmp_path_factory.mktemp("single") / "original.safetensors"
    rewrite_single_file(path, find_tensors(folder, FLUX.basename), config=CONFIG, dtype="float32")
    return path


def load_all(path):
    """Like safetensors' load_file, which has no 8 bits in numpy."""
    return {key: tensor[()].copy() for key, tensor in read_header(path)[0].items()}


def rewritten(path, out, change):
    """A copy of the file with other tensors."""
    tensors = load_all(path)
    save_file(change(tensors) or tensors, out)
    return out


def assert_equal(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_names_and_rows_are_those_that_diffusers_makes_of_the_original(tmp_path):
    """With all of FLUX's rows, on which diffusers' function counts, and few columns."""
    width, rng, tensors = 3072, np.random.default_rng(0), {}
    rows = {"linear1": 7, "img_mod.lin": 6, "txt_mod.lin": 6, "modulation.lin": 3}
    rows |= {"img_attn.qkv": 3, "txt_attn.qkv": 3, "img_mlp.0": 4, "txt_mlp.0": 4}
    modules = [
        f"{block}.{number}.{name}"
        for block, names in BLOCK_MODULES.items()
        for number in range(2)
        for name in names
    ]
    for module in (*MODULES, *modules):
        name = re.sub(r"^\w+_blocks\.\d+\.", "", module)
        if module.endswith("_norm"):
            tensors[f"{module}.scale"] = rng.normal(size=128).astype(np.float32)
            continue
        size = rows.get(name, 2 if "adaLN" in name else 1) * width
        tensors[f"{module}.weight"] = rng.normal(size=(size, 2)).astype(np.float32)
        tensors[f"{module}.bias"] = rng.normal(size=size).astype(np.float32)
    save_file(tensors, tmp_path / "flux.safetensors")
    given = {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}
    expected = convert_flux_transformer_checkpoint_to_diffusers(given)
    assert not given, "diffusers has not read all names"
    found = read_single_file(tmp_path / "flux.safetensors").tensors
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        np.testing.assert_array_equal(tensor[()], expected[name].numpy())
        assert tensor.shape == tuple(expected[name].shape)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", FP8])
def test_there_and_back_is_exact_from_memory_and_from_disk(folder, params, tmp_path, dtype):
    made, copied = tmp_path / "made.safetensors", tmp_path / "copied.safetensors"
    write_single_file(made, params, config=CONFIG, dtype=dtype)
    rewrite_single_file(copied, find_tensors(folder, FLUX.basename), config=CONFIG, dtype=dtype)
    assert made.read_bytes() == copied.read_bytes()
    file = read_single_file(made)
    assert single_file_config(file, None) == single_file_config(file, CONFIG) == CONFIG
    if dtype != FP8:
        found = load_params(made, abstract(), FLUX, dtype=dtype)
        assert_equal(found, jax.tree.map(lambda leaf: leaf.astype(dtype), params))


def scaled(names, marker):
    """A change of a float32 file to 8 bits with scales, in one of ComfyUI's two conventions."""

    def change(tensors):
        for key in [key for key in tensors if key.endswith(".weight") and "blocks" in key]:
            layer = key.removesuffix(".weight")
            scale = np.asarray(np.abs(tensors[key]).max() / 448)
            tensors[key] = (tensors[key] / scale).astype(jnp.float8_e4m3fn)
            tensors[f"{layer}.{names[0]}"] = scale.reshape(() if marker else 1)
            tensors[f"{layer}.{names[1]}"] = np.ones((), np.float32)
            if not marker:
                note = json.dumps({"format": FP8}).encode()
                tensors[f"{layer}.comfy_quant"] = np.frombuffer(note, np.uint8)
        if marker:
            tensors["scaled_fp8"] = np.zeros(2, jnp.float8_e4m3fn)

    return change


@pytest.mark.parametrize("convention", ["scaled_fp8", "comfy_quant", "ours", "rows"])
def test_eight_bits_with_scales(original, params, tmp_path, convention):
    """Each weight is its 8-bit value times the scale, and the file is as near as 8 bits can be."""
    path = tmp_path / "fp8.safetensors"
    if convention == "ours":
        write_single_file(path, params, config=CONFIG, dtype=FP8)
    else:
        names = ("scale_weight", "scale_input")
        if convention == "comfy_quant":
            names = ("weight_scale", "input_scale")
        rewritten(original, path, scaled(names, convention != "comfy_quant"))
    if convention == "rows":  # a scale for each row, of which fused layers take their own
        rows = np.random.default_rng(0).uniform(0.5, 2, size=2 * 16 * 7).astype(np.float32)

        def change(tensors):
            tensors["single_blocks.1.linear1.scale_weight"] = rows[:, None]

        rewritten(path, path, change)
    stored = load_all(path)
    found = load_params(path, abstract(), FLUX)
    blocks = found["single_transformer_blocks"]
    values = stored["single_blocks.1.linear1.weight"].astype(np.float32)
    name = "weight_scale" if convention in ("comfy_quant", "ours") else "scale_weight"
    parts = np.split(values * stored[f"single_blocks.1.linear1.{name}"], [32, 64, 96])
    for part, leaf in zip(parts, ("attn/to_q", "attn/to_k", "attn/to_v", "proj_mlp")):
        kernel = functools.reduce(lambda tree, name: tree[name], leaf.split("/"), blocks)
        np.testing.assert_array_equal(kernel["kernel"][1].T, part)
    if convention != "rows":
        for leaf, wanted in zip(jax.tree.leaves(found), jax.tree.leaves(params)):
            assert np.linalg.norm(leaf - wanted) < 0.04 * np.linalg.norm(wanted)


@pytest.mark.parametrize("kind", [jnp.float8_e4m3fn, jnp.float8_e5m2])
def test_eight_bits_without_scales_are_a_plain_cast(original, params, tmp_path, kind):
    def cast(leaf):
        return np.asarray(leaf).astype(kind)

    path = rewritten(original, tmp_path / "cast.safetensors", functools.partial(jax.tree.map, cast))
    found = load_params(path, abstract(), FLUX)
    assert_equal(found, jax.tree.map(lambda leaf: cast(leaf).astype(np.float32), params))


def full_checkpoint(tensors):
    """A checkpoint with the VAE and a text encoder, also in 8 bits, beside the transformer."""
    others = ("vae.decoder.conv_in.weight", "text_encoders.clip_l.transformer.scaled_fp8")
    return {
        f"model.diffusion_model.{key}": value for key, value in tensors.items()
    } | dict.fromkeys(others, np.zeros((2, 2), np.float32))


SPELLINGS = {
    "prefixed": lambda tensors: {f"diffusion_model.{key}": one for key, one in tensors.items()},
    "full checkpoint": full_checkpoint,
    "norms called weight": lambda tensors: {
        key.replace("_norm.scale", "_norm.weight"): one for key, one in tensors.items()
    },
    "diffusers": dict,
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_other_spellings(original, folder, params, tmp_path, spelling):
    source = next(folder.glob("*.safetensors")) if spelling == "diffusers" else original
    path = rewritten(source, tmp_path / "spelled.safetensors", SPELLINGS[spelling])
    assert_equal(load_params(path, abstract(), FLUX), params)
    assert read_single_file(path).others == (spelling == "full checkpoint")


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
def test_gguf(original, tmp_path, kind):
    """Matrices in blocks of 32 of a row; each tensor is what the package makes of it."""
    quantized, path = gguf.GGMLQuantizationType[kind], tmp_path / "flux.gguf"
    writer, expected = gguf.GGUFWriter(path, "flux"), {}
    for name, tensor in load_all(original).items():
        if tensor.ndim < 2 or tensor.shape[1] % 32:
            writer.add_tensor(name, tensor)
            expected[name] = tensor
            continue
        stored = gguf.quantize(tensor, quantized)
        writer.add_tensor(name, stored, raw_dtype=quantized)
        expected[name] = gguf.dequantize(stored, quantized)
        assert 0 < np.abs(expected[name] - tensor).max() < 0.1
    for part in ("header", "kv_data", "tensors"):
        getattr(writer, f"write_{part}_to_file")()
    writer.close()
    save_file(expected, tmp_path / "flux.safetensors")
    found = load_params(path, abstract(), FLUX)
    assert_equal(found, load_params(tmp_path / "flux.safetensors", abstract(), FLUX))
    for kept in (10, 200, path.stat().st_size - 64):
        cut = tmp_path / "cut.gguf"
        cut.write_bytes(path.read_bytes()[:kept])
        with pytest.raises(ValueError, match="truncated"):
            read_single_file(cut)


def test_every_device_reads_its_part_of_a_scaled_file(params, tmp_path, monkeypatch):
    """On 8 devices, in small blocks; fused, halved and scaled tensors; saved from there too."""
    path, again = tmp_path / "fp8.safetensors", tmp_path / "again.safetensors"
    write_single_file(path, params, config=CONFIG, dtype=FP8)
    whole = load_params(path, abstract(), FLUX)
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    sharded = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        unbox(abstract()),
        logical_shardings(abstract(), mesh),
    )
    monkeypatch.setattr("onereward_jax.convert.load.BLOCK_BYTES", 2000)
    found = load_params(path, sharded, FLUX)
    assert sum(not leaf.is_fully_replicated for leaf in jax.tree.leaves(found)) > 5
    assert_equal(found, whole)
    write_single_file(again, found, config=CONFIG, dtype="float32")
    assert_equal(load_params(again, abstract(), FLUX), whole)


def without(pattern):
    return lambda tensors: {key: one for key, one in tensors.items() if not re.search(pattern, key)}


def added(**more):
    return lambda tensors: tensors | {name.replace("__", "."): one for name, one in more.items()}


NUMBER = np.zeros((2, 2), np.float32)
BROKEN = {
    "a missing block": (
        without(r"single_blocks\.1\."),
        "no tensors of single_transformer_blocks.1",
    ),
    "the last block": (without(r"double_blocks\.1\."), r"num_layers 1 \(the editor's 2\)"),
    "a missing tensor": (
        without(r"1\.img_mlp\.2\.bias"),
        "transformer_blocks.1.ff.net.2.bias: miss",
    ),
    "an unknown tensor": (added(double_blocks__0__extra__weight=NUMBER), "but not in the model"),
    "a part that does not split": (
        added(double_blocks__0__img_attn__qkv__bias=np.zeros(97, np.float32)),
        "double_blocks.0.img_attn.qkv.bias: 97 rows do not split into 3 parts",
    ),
    "text-to-image": (
        lambda tensors: tensors | {"img_in.weight": tensors["img_in.weight"][:, :64].copy()},
        "has 64 input channels: it is a text-to-image FLUX.1",
    ),
    "an adapter": (
        lambda _: {"double_blocks.0.img_attn.qkv.lora_A.weight": NUMBER},
        "holds an adapter .LoRA.: pass it as --lora",
    ),
    "FLUX.2": (added(double_stream_modulation_img__lin__weight=NUMBER), "a FLUX.2 model"),
    "NF4": (
        added(double_blocks__0__img_mlp__0__weight__absmax=NUMBER),
        r"NF4 or FP4 \(bitsandbytes",
    ),
    "SVDQuant": (added(transformer_blocks__0__qkv_proj__wscales=NUMBER), "SVDQuant"),
    "INT8": (
        lambda tensors: {key: one.astype(np.int8) for key, one in tensors.items()},
        "is quantized: its weights have dtype I8",
    ),
    "a text encoder": (lambda _: {"encoder.block.0.layer.0.weight": NUMBER}, "a T5 text encoder"),
    "nothing known": (lambda _: {"weight": NUMBER}, "holds no FLUX transformer"),
    "infinite weights": (
        added(img_in__bias=np.full(32, np.inf, np.float32)),
        "x_embedder.bias .F32 in the file. has 32 weights that are NaN or infinite",
    ),
    "a stray scale": (
        added(double_blocks__0__img_mlp__0__scale_weight=NUMBER),
        "its dtype is F32, not F8_E4M3 or F8_E5M2",
    ),
    "another format": (
        added(
            double_blocks__0__img_mlp__0__comfy_quant=np.frombuffer(b'{"format": "nvfp4"}', "u1")
        ),
        "double_blocks.0.img_mlp.0 is quantized as 'nvfp4'",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_transformer_of_this_editor_is_one_sentence(original, tmp_path, case):
    change, message = BROKEN[case]
    path = rewritten(original, tmp_path / "broken.safetensors", change)
    with pytest.raises(ValueError, match=message) as error:
        file = read_single_file(path)
        single_file_config(file, CONFIG)
        load_params(path, abstract(), FLUX)
    assert str(path) in str(error.value)
    assert len(str(error.value).splitlines()) <= 22


def test_folders_with_variants_and_with_quantized_weights(folder, params, tmp_path):
    """The files of one variant are taken; of several, or beside other bits, none."""
    copy = tmp_path / "transformer"
    shutil.copytree(folder, copy)
    weights = copy / f"{FLUX.basename}.safetensors"
    fp16 = weights.rename(copy / f"{FLUX.basename}.fp16.safetensors")
    assert_equal(load_params(copy, abstract(), FLUX), params)
    shutil.copy(fp16, copy / f"{FLUX.basename}.bf16.safetensors")
    with pytest.raises(ValueError, match="several variants .*bf16.safetensors, .*fp16"):
        load_params(copy, abstract(), FLUX)
    config = {**CONFIG, "quantization_config": {"quant_method": "bitsandbytes"}}
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="weights are quantized .'bitsandbytes'."):
        load_params(copy, abstract(), FLUX)


def test_other_files_are_named(original, tmp_path):
    for content, message in (
        (original.read_bytes()[:-1], "truncated or not safetensors"),
        (b"", "truncated or not safetensors"),
        (b"\xff" * 64, "truncated or not safetensors"),
        (b"PK\x03\x04 torch", "is a pickle"),
        (b"version https://git-lfs.github.com/spec/v1", "pointer of Git LFS"),
        (b"<!DOCTYPE html>", "web page"),
    ):
        path = tmp_path / "file.safetensors"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_single_file(path)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_single_file(tmp_path / "none.safetensors")
