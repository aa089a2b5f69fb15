"""Hugging Face folders <-> Flax trees: exact both ways, strict, lazy, atomic."""

import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL as TorchVae
from diffusers import FluxTransformer2DModel
from safetensors.numpy import load_file, save_file
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    T5Config,
    T5EncoderModel,
)

from onereward_jax.convert import (
    CLIP,
    FLUX,
    QWEN2_5_VL,
    T5,
    VAE,
    load,
    load_params,
    read_config,
    save_params,
)
from onereward_jax.convert.safetensors_reader import StoredTensor, find_tensors
from onereward_jax.convert.tensor_names import entry_of, unbox
from onereward_jax.models.clip import ClipTextConfig, ClipTextModel
from onereward_jax.models.flux import FluxConfig, FluxTransformer
from onereward_jax.models.qwen2_5_vl import Qwen2_5_VL, init_params
from onereward_jax.models.qwen2_5_vl import Qwen2_5_VLConfig as QwenConfig
from onereward_jax.models.t5 import T5Config as OurT5Config
from onereward_jax.models.t5 import T5Encoder
from onereward_jax.models.vae import AutoencoderKL, VaeConfig
from onereward_jax.parallel import logical_shardings, make_mesh

FLUX_SIZES = dict(
    in_channels=16,
    out_channels=4,
    num_layers=2,
    num_single_layers=3,
    attention_head_dim=16,
    num_attention_heads=2,
    joint_attention_dim=24,
    pooled_projection_dim=12,
    guidance_embeds=True,
    axes_dims_rope=(4, 6, 6),
)
VAE_SIZES = dict(
    block_out_channels=(8, 16),
    down_block_types=("DownEncoderBlock2D",) * 2,
    up_block_types=("UpDecoderBlock2D",) * 2,
    norm_num_groups=4,
    latent_channels=4,
)
TEXT = dict(
    vocab_size=64,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    bos_token_id=0,
    eos_token_id=0,
    rope_parameters={"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4},
)
VISION = dict(
    depth=3,
    hidden_size=16,
    intermediate_size=20,
    num_heads=2,
    patch_size=4,
    out_hidden_size=16,
    window_size=16,
    fullatt_block_indexes=[1],
)


def abstract_flux(config):
    ids = jnp.zeros((2, 3))
    arguments = (
        jnp.zeros((1, 2, config["in_channels"])),
        jnp.zeros((1, 2, config["joint_attention_dim"])),
        jnp.zeros((1, config["pooled_projection_dim"])),
        jnp.zeros(1),
        ids,
        ids,
        jnp.zeros(1),
    )
    model = FluxTransformer(FluxConfig.from_dict(config))
    return jax.eval_shape(lambda: model.init(jax.random.key(0), *arguments))["params"]


def abstract_vae(config):
    model = AutoencoderKL(VaeConfig.from_dict(config))
    images = jnp.zeros((1, 4, 4, 3))
    return jax.eval_shape(lambda: model.init(jax.random.key(0), images))["params"]


def abstract_qwen(config):
    model = Qwen2_5_VL(QwenConfig.from_dict(config))
    return jax.eval_shape(lambda: init_params(model, jax.random.key(0)))


def make_qwen():
    config = Qwen2_5_VLConfig(text_config=TEXT, vision_config=VISION, image_token_id=60)
    return Qwen2_5_VLForConditionalGeneration(config)


def abstract_t5(config):
    model = T5Encoder(OurT5Config.from_dict(config))
    ids = jnp.zeros((1, 3), jnp.int32)
    return jax.eval_shape(lambda: model.init(jax.random.key(0), ids))["params"]


def abstract_clip(config):
    model = ClipTextModel(ClipTextConfig.from_dict(config))
    ids = jnp.zeros((1, 3), jnp.int32)
    return jax.eval_shape(lambda: model.init(jax.random.key(0), ids))["params"]


def make_clip():
    sizes = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2)
    ids = dict(vocab_size=20, max_position_embeddings=7, bos_token_id=0, eos_token_id=1)
    return CLIPTextModel(CLIPTextConfig(**sizes, **ids))


def make_t5():
    sizes = dict(vocab_size=20, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2)
    return T5EncoderModel(T5Config(**sizes, feed_forward_proj="gated-gelu"))


MODELS = {
    "flux": (FLUX, lambda: FluxTransformer2DModel(**FLUX_SIZES), abstract_flux),
    "vae": (VAE, lambda: TorchVae(**VAE_SIZES), abstract_vae),
    "qwen": (QWEN2_5_VL, make_qwen, abstract_qwen),
    "t5": (T5, make_t5, abstract_t5),
    "clip": (CLIP, make_clip, abstract_clip),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """{name: folder} with torch's own files of every model, all parameters random."""
    root = tmp_path_factory.mktemp("torch")
    torch.manual_seed(0)
    for name, (_, make, _) in MODELS.items():
        model = make()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter)
        model.save_pretrained(root / name)
    return {name: root / name for name in MODELS}


def torch_tensors(folder, name, dtype=torch.float32):
    """What torch's own from_pretrained makes of a folder."""
    model_class = type(MODELS[name][1]())
    options = {"torch_dtype" if MODELS[name][0].model_type is None else "dtype": dtype}
    return model_class.from_pretrained(folder, **options).state_dict()


@pytest.fixture(scope="module")
def trees(folders):
    """{name: abstract parameters of our model}."""
    return {name: MODELS[name][2](read_config(folders[name])) for name in MODELS}


@pytest.fixture(scope="module")
def loaded(folders, trees):
    """{name: parameters in float32}."""
    return {name: load_params(folders[name], trees[name], MODELS[name][0]) for name in MODELS}


def assert_trees_equal(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_each_kind_of_tensor_goes_where_the_rule_says(folders, loaded):
    flux, vae, qwen, *_ = loaded.values()
    files = {name: load_file(next(folders[name].glob("*.safetensors"))) for name in MODELS}

    dense = flux["time_text_embed"]["guidance_embedder"]["linear_1"]["kernel"]
    source = files["flux"]["time_text_embed.guidance_embedder.linear_1.weight"]
    np.testing.assert_array_equal(dense, source.T)

    scanned = flux["single_transformer_blocks"]["proj_mlp"]["kernel"]
    for layer in range(3):
        source = files["flux"][f"single_transformer_blocks.{layer}.proj_mlp.weight"]
        np.testing.assert_array_equal(scanned[layer], source.T)

    convolution = vae["encoder"]["down_blocks_1"]["resnets_0"]["conv1"]["kernel"]
    source = files["vae"]["encoder.down_blocks.1.resnets.0.conv1.weight"]
    np.testing.assert_array_equal(convolution, np.einsum("oihw->hwio", source))

    patches = qwen["visual"]["patch_embed"]["proj"]["kernel"]
    source = files["qwen"]["visual.patch_embed.proj.weight"]
    assert source.shape == (16, 3, 2, 4, 4)
    np.testing.assert_array_equal(patches, source.reshape(16, -1).T)

    embedding = qwen["model"]["embed_tokens"]["embedding"]
    np.testing.assert_array_equal(embedding, files["qwen"]["model.embed_tokens.weight"])
    norm = qwen["visual"]["blocks"]["norm1"]["scale"][2]
    np.testing.assert_array_equal(norm, files["qwen"]["visual.blocks.2.norm1.weight"])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", MODELS)
def test_export_is_the_exact_inverse_and_opens_in_torch(folders, trees, tmp_path, name, dtype):
    layout = MODELS[name][0]
    params = load_params(folders[name], trees[name], layout, dtype=dtype)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(dtype)}
    config = read_config(folders[name])
    save_params(tmp_path / "one", params, layout, config=config)
    save_params(tmp_path / "many", params, layout, config=config, max_shard_bytes=4000)
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 2

    torch_dtype = getattr(torch, jnp.dtype(dtype).name)
    expected = torch_tensors(folders[name], name, torch_dtype)
    for folder in ("one", "many"):
        assert_trees_equal(load_params(tmp_path / folder, params, layout), params)
        found = torch_tensors(tmp_path / folder, name, torch_dtype)
        assert found.keys() == expected.keys()
        for key in expected:
            assert torch.equal(found[key], expected[key]), key


def test_export_casts_and_says_so(folders, loaded, tmp_path):
    params = loaded["qwen"]
    config = read_config(folders["qwen"])
    save_params(tmp_path / "half", params, QWEN2_5_VL, config=config, dtype="bfloat16")
    assert read_config(tmp_path / "half")["dtype"] == "bfloat16"
    found = load_params(tmp_path / "half", params, QWEN2_5_VL, dtype=jnp.float32)
    rounded = jax.tree.map(lambda leaf: np.asarray(leaf).astype(jnp.bfloat16), params)
    assert_trees_equal(found, rounded)


RESPELL = {
    "clip": (r"^", "text_model."),
    "t5": (r"^shared\.", "encoder.embed_tokens."),
    "qwen": (r"^(visual|model)\.", {"visual": "model.visual.", "model": "model.language_model."}),
}


@pytest.mark.parametrize("name", RESPELL)
def test_every_known_spelling_of_the_names_loads(folders, trees, loaded, tmp_path, name):
    """Versions of transformers differ in prefixes; buffers and tied copies may be in a file."""
    layout = MODELS[name][0]
    shutil.copytree(folders[name], tmp_path / name)
    path = tmp_path / name / "model.safetensors"
    tensors = load_file(path)
    pattern, new = RESPELL[name]
    by_match = (lambda match: new[match[1]]) if isinstance(new, dict) else new
    respelled = {re.sub(pattern, by_match, key): value for key, value in tensors.items()}
    assert respelled.keys() != tensors.keys()
    extra = {
        "clip": {"text_model.embeddings.position_ids": np.arange(7)},
        "t5": tensors,
        "qwen": {"model.layers.0.self_attn.rotary_emb.inv_freq": np.zeros(2, np.float32)},
    }[name]
    for contents in (respelled, respelled | extra):
        save_file(contents, path)
        found = load_params(tmp_path / name, trees[name], layout)
        assert_trees_equal(found, loaded[name])


def test_a_tied_model_takes_no_notice_of_a_copy_of_its_embeddings(folders, tmp_path):
    """Some tools write the output projection of a tied Qwen2.5-VL (the 3B) a second time."""
    config = {**read_config(folders["qwen"]), "tie_word_embeddings": True}
    tensors = load_file(folders["qwen"] / "model.safetensors")
    tied = abstract_qwen(config)
    assert "lm_head" not in tied
    write = lambda contents: save_file(contents, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    write({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"]})
    with_copy = load_params(tmp_path, tied, QWEN2_5_VL)
    del tensors["lm_head.weight"]
    write(tensors)
    assert_trees_equal(load_params(tmp_path, tied, QWEN2_5_VL), with_copy)
    with pytest.raises(ValueError, match="lm_head.weight: missing in the files"):
        load_params(tmp_path, abstract_qwen(read_config(folders["qwen"])), QWEN2_5_VL)


def test_all_mismatches_are_listed_at_once(folders, trees, tmp_path):
    shutil.copytree(folders["flux"], tmp_path / "flux")
    path = tmp_path / "flux" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    del tensors["transformer_blocks.1.attn.to_q.weight"]
    tensors["proj_out.bias"] = np.zeros(5, np.float32)
    tensors["stray.weight"] = np.zeros(3, np.float32)
    save_file(tensors, path)
    with pytest.raises(ValueError) as error:
        load_params(tmp_path / "flux", trees["flux"], FLUX)
    first, *lines = str(error.value).splitlines()
    assert str(tmp_path / "flux") in first
    assert len(lines) == 3
    for part in (
        "transformer_blocks.1.attn.to_q.weight: missing in the files",
        "proj_out.bias: shape (5,) in the files, expected (4,)",
        "stray.weight: in the files, but not in the model",
    ):
        assert sum(part in line for line in lines) == 1


@pytest.mark.parametrize("name", MODELS)
def test_sharded_load_puts_the_right_slice_on_every_device(folders, trees, loaded, name):
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    boxed = trees[name]
    sharded = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        unbox(boxed),
        logical_shardings(boxed, mesh),
    )
    found = load_params(folders[name], sharded, MODELS[name][0])
    expected = loaded[name]
    split = 0
    for leaf, wanted, whole in zip(*map(jax.tree.leaves, (found, sharded, expected))):
        assert leaf.sharding == wanted.sharding
        split += leaf.sharding.shard_shape(leaf.shape) != leaf.shape
        for shard in leaf.addressable_shards:
            np.testing.assert_array_equal(shard.data, np.asarray(whole)[shard.index])
    assert split > 5


@pytest.mark.parametrize("block_bytes", [1 << 20, 1])
def test_a_shard_reads_no_more_than_itself(tmp_path, monkeypatch, block_bytes):
    """Counts the values taken from the file for one device's part of a scanned Dense."""
    monkeypatch.setattr(load, "BLOCK_BYTES", block_bytes)
    values = np.arange(3 * 8 * 6, dtype=np.float32).reshape(3, 8, 6)
    taken = []

    class Counted(StoredTensor):
        def __getitem__(self, index):
            part = super().__getitem__(index)
            taken.append(part.size)
            return part

    keys = [f"transformer_blocks.{i}.ff.net.2.weight" for i in range(3)]
    save_file(dict(zip(keys, values)), tmp_path / f"{FLUX.basename}.safetensors")
    entry = entry_of("transformer_blocks/ff/net_2/kernel", (3, 6, 8), FLUX, {})
    found = find_tensors(tmp_path, FLUX.basename)
    tensors = {key: Counted(**vars(tensor)) for key, tensor in found.items()}
    index = (slice(1, 3), slice(0, 2), slice(4, 8))
    part = load.read_leaf(entry, tensors, index, np.dtype(np.float32))
    np.testing.assert_array_equal(part, values.transpose(0, 2, 1)[index])
    assert sum(taken) == part.size == 16
    assert len(taken) == (2 if block_bytes > 1 else 8)


def test_a_failing_export_leaves_the_old_folder_alone(folders, loaded, tmp_path):
    params, config = loaded["vae"], read_config(folders["vae"])
    save_params(tmp_path / "vae", params, VAE, config=config)
    with pytest.raises(ValueError, match="decoder/odd/gain: leaf 'gain'"):
        broken = {**params, "decoder": {**params["decoder"], "odd": {"gain": jnp.ones(2)}}}
        save_params(tmp_path / "vae", broken, VAE, config={**config, "sample_size": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["vae"]
    assert json.loads((tmp_path / "vae" / "config.json").read_text()) == config
    assert_trees_equal(load_params(tmp_path / "vae", params, VAE), params)

    doubled = jax.tree.map(lambda leaf: 2 * np.asarray(leaf), params)
    save_params(tmp_path / "vae", doubled, VAE, config=config)
    assert_trees_equal(load_params(tmp_path / "vae", params, VAE), doubled)


def test_saving_from_a_mesh_writes_the_same_files(trees, loaded, folders, tmp_path):
    """From a mesh the same files as from the host."""
    layout, params = MODELS["flux"][0], loaded["flux"]
    config = read_config(folders["flux"])
    save_params(tmp_path / "host", params, layout, config=config)
    mesh = make_mesh(2, 2, 2)
    spread = jax.tree.map(jax.device_put, params, logical_shardings(trees["flux"], mesh))
    save_params(tmp_path / "mesh", spread, layout, config=config)
    for path in (tmp_path / "host").iterdir():
        assert (tmp_path / "mesh" / path.name).read_bytes() == path.read_bytes()
