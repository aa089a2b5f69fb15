"""Whatever is wrong with a model folder, one sentence says it and names the file."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch

from onereward_jax.convert import (
    FLUX,
    VAE,
    load_params,
    load_tokenizer,
    read_config,
    resolve_folder,
    save_params,
)
from onereward_jax.convert.hub import PACKAGE, download_patterns
from onereward_jax.models.vae import AutoencoderKL, VaeConfig
from onereward_jax.parallel import make_mesh
from onereward_jax.policy import load_policy, read_policy
from onereward_jax.reward.judge_loader import read_reward_model

EDITOR, JUDGE = PACKAGE / "mini" / "models" / "editor", PACKAGE / "mini" / "models" / "judge"
WEIGHTS = "diffusion_pytorch_model.safetensors"
INDEX = WEIGHTS + ".index.json"
VAE_CONFIG = VaeConfig(block_out_channels=(4, 4), norm_num_groups=2, latent_channels=2)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """(folder with `one` and `many`, parameters) of a tiny autoencoder."""
    images = jnp.zeros((1, 4, 4, 3))
    abstract = jax.eval_shape(lambda: AutoencoderKL(VAE_CONFIG).init(jax.random.key(0), images))
    rng = np.random.default_rng(0)
    draw = lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32)
    params = jax.tree.map(draw, nn.meta.unbox(abstract["params"]))
    root = tmp_path_factory.mktemp("vae")
    config = VAE_CONFIG.to_dict()
    save_params(root / "one", params, VAE, config=config)
    save_params(root / "many", params, VAE, config=config, max_shard_bytes=10_000)
    assert len(list((root / "many").glob("*.safetensors"))) > 2
    return root, params


@pytest.fixture
def one(written, tmp_path):
    return Path(shutil.copytree(written[0] / "one", tmp_path / "one"))


@pytest.fixture
def many(written, tmp_path):
    return Path(shutil.copytree(written[0] / "many", tmp_path / "many"))


@pytest.fixture(scope="module")
def load(written):
    return lambda folder: load_params(folder, written[1], VAE)


def test_missing_folders_and_weights(load, one, tmp_path):
    with pytest.raises(FileNotFoundError, match="model folder .*nowhere does not exist"):
        load(tmp_path / "nowhere")
    (one / WEIGHTS).unlink()
    with pytest.raises(FileNotFoundError, match="no weights in .*one: neither .*nor .*index.json"):
        load(one)
    (one / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="one/config.json does not exist"):
        load(one)


@pytest.mark.parametrize("kept", [-4, 1000, 4, 0])
def test_truncated_files(load, one, kept):
    """Cut in the last tensor, in the header, in its length, to nothing."""
    data = (one / WEIGHTS).read_bytes()
    (one / WEIGHTS).write_bytes(data[:kept])
    with pytest.raises(ValueError, match=f"one/{WEIGHTS} is truncated or not safetensors: "):
        load(one)


def test_missing_and_truncated_shards(load, many):
    first, lost, *_ = sorted(many.glob("*.safetensors"))
    first.write_bytes(first.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"many/{first.name} is truncated"):
        load(many)
    lost.unlink()
    with pytest.raises(FileNotFoundError, match=f"lists {lost.name}, which do not exist"):
        load(many)


def test_indices_that_are_not_true(load, many):
    index = json.loads((many / INDEX).read_text())
    weight_map = index["weight_map"]
    moved, dropped, *_ = sorted(weight_map)
    there = sorted(set(weight_map.values()) - {weight_map[moved]})[0]
    wrong = {**weight_map, moved: there, "ghost.weight": there}
    del wrong[dropped]
    (many / INDEX).write_text(json.dumps({**index, "weight_map": wrong}))
    with pytest.raises(ValueError, match="index.json does not match its shards") as error:
        load(many)
    assert str(error.value).splitlines()[1:] == [
        f"  {moved}: listed in {there}, but not in that file",
        f"  ghost.weight: listed in {there}, but not in that file",
        f"  {dropped}: in {weight_map[dropped]}, but not in the index",
    ]
    for text, message in (
        ("{", "index.json is not valid JSON"),
        ("[]", "index.json holds a list, not a JSON object"),
        ("{}", "index.json has no weight_map"),
        ('{"weight_map": ["a"]}', "index.json has no weight_map"),
        ('{"weight_map": {"a": "../b"}}', r"the file of a is '\.\./b', which is not a file name"),
        ('{"weight_map": {"a": 1}}', "the file of a is 1, which is not a file name"),
    ):
        (many / INDEX).write_text(text)
        with pytest.raises(ValueError, match=message):
            load(many)


def test_dtypes_that_are_no_weights_are_listed_together(load, one):
    tensors = {key: torch.from_numpy(value) for key, value in load_file(one / WEIGHTS).items()}
    first, second, *_ = sorted(tensors)
    tensors[first] = tensors[first].to(torch.int32)
    tensors[second] = tensors[second].to(torch.int8)
    save_torch(tensors, one / WEIGHTS)
    with pytest.raises(ValueError) as error:
        load(one)
    assert sorted(str(error.value).splitlines()[1:]) == [
        f"  {first}: dtype I32 is none of F64, F32, F16, BF16, F8_E4M3, F8_E5M2",
        f"  {second}: dtype I8 is none of F64, F32, F16, BF16, F8_E4M3, F8_E5M2",
    ]


def test_files_of_mixed_dtypes_are_read_in_the_wished_one(written, one):
    tensors = load_file(one / WEIGHTS)
    dtypes = (np.float16, jnp.bfloat16, np.float64, np.float32)
    mixed = {key: tensor.astype(dtypes[i % 4]) for i, (key, tensor) in enumerate(tensors.items())}
    save_file(mixed, one / WEIGHTS)
    found = load_params(one, written[1], VAE, dtype=jnp.float32)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(jnp.float32)}
    close = lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=4e-3)
    jax.tree.map(close, found, written[1])


def test_another_architecture(written, load, one, tmp_path):
    with pytest.raises(ValueError, match="one/config.json describes a AutoencoderKL; expected a F"):
        load_params(one, written[1], FLUX)
    with pytest.raises(ValueError, match="editor holds a FluxFillPipeline; expected a Autoenc"):
        load(EDITOR)
    with pytest.raises(ValueError, match="editor holds a FluxFillPipeline; expected a Qwen2_5_VL"):
        read_reward_model(EDITOR, (64, 64))
    alone = EDITOR / "transformer"
    with pytest.raises(ValueError, match="holds a FluxTransformer2DModel alone; expected a full"):
        read_policy(alone)
    with pytest.raises(ValueError, match="judge holds a Qwen2_5_VLForConditionalGeneration alone"):
        read_policy(JUDGE)
    with pytest.raises(ValueError, match="vae/config.json describes a AutoencoderKL; expected a F"):
        read_policy(EDITOR, transformer=EDITOR / "vae")
    with pytest.raises(FileNotFoundError, match="model_index.json does not exist"):
        read_policy(tmp_path)
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    with pytest.raises(ValueError, match="describes a StableDiffusionPipeline; expected a Flux"):
        read_policy(tmp_path)


def test_missing_and_broken_tokenizers(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere/tokenizer_config.json does not exist"):
        load_tokenizer(tmp_path / "nowhere")
    for name in ("tokenizer", "tokenizer_2"):
        folder = Path(shutil.copytree(EDITOR / name, tmp_path / name))
        (folder / "tokenizer.json").write_text("{")
        with pytest.raises(ValueError, match=f"no tokenizer can be read from .*{name}: "):
            load_tokenizer(folder)
        (folder / "tokenizer.json").unlink()
        with pytest.raises(FileNotFoundError, match=f"{name} has no vocabulary: none of .*"):
            load_tokenizer(folder)


def test_a_clip_tokenizer_without_tokenizer_json_is_the_same(tmp_path):
    """FLUX.1-Fill-dev has only the two older files for CLIP."""
    whole = load_tokenizer(EDITOR / "tokenizer")
    shutil.copytree(EDITOR / "tokenizer", tmp_path / "old")
    model = json.loads((tmp_path / "old" / "tokenizer.json").read_text())["model"]
    (tmp_path / "old" / "tokenizer.json").unlink()
    (tmp_path / "old" / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = "\n".join(["#version: 0.2", *(" ".join(pair) for pair in model["merges"])])
    (tmp_path / "old" / "merges.txt").write_text(merges + "\n")
    old = load_tokenizer(tmp_path / "old")
    for text in ("a red apple on the left", 'the word "STAR"', ""):
        kinds = dict(padding="max_length", max_length=77, truncation=True)
        assert old(text, **kinds).input_ids == whole(text, **kinds).input_ids


def test_a_transformer_alone_takes_the_place_of_the_editors_own(tmp_path):
    """As OneReward's are published: a folder with nothing but a transformer."""
    mesh = make_mesh(devices=jax.devices()[:1])
    editor, params = load_policy(EDITOR, mesh)
    other = jax.tree.map(lambda leaf: -leaf, params.transformer)
    config = read_config(EDITOR / "transformer")
    save_params(tmp_path / "alone", other, FLUX, config=config)
    same, found = load_policy(EDITOR, mesh, transformer=tmp_path / "alone")
    assert same == editor
    jax.tree.map(np.testing.assert_array_equal, found.transformer, other)
    jax.tree.map(np.testing.assert_array_equal, found.vae, params.vae)


FLUX_FILL_FILES = {
    "model_index.json": True,
    "scheduler/scheduler_config.json": True,
    "tokenizer/merges.txt": True,
    "tokenizer/vocab.json": True,
    "tokenizer_2/spiece.model": True,
    "tokenizer_2/tokenizer.json": True,
    "text_encoder/model.safetensors": True,
    "text_encoder_2/model-00001-of-00002.safetensors": True,
    "text_encoder_2/model.safetensors.index.json": True,
    "transformer/diffusion_pytorch_model-00001-of-00003.safetensors": True,
    "transformer/diffusion_pytorch_model.safetensors.index.json": True,
    "vae/diffusion_pytorch_model.safetensors": True,
    "flux1-fill-dev.safetensors": False,  # the transformer again
    "ae.safetensors": False,  # the autoencoder again
    "text_encoder/model.fp16.safetensors": False,
    "text_encoder/pytorch_model.bin": False,
    "transformer/diffusion_pytorch_model.bin": False,
    "modeling_custom.py": False,
    "dev_grid.jpg": False,
}


def test_only_what_is_read_is_fetched():
    found = set(filter_repo_objects(FLUX_FILL_FILES, allow_patterns=download_patterns()))
    assert found == {name for name, wanted in FLUX_FILL_FILES.items() if wanted}
    patterns = download_patterns("transformer")
    inside = set(filter_repo_objects(FLUX_FILL_FILES, allow_patterns=patterns))
    assert inside == {name for name in found if name.startswith("transformer/")}


def test_adapters_are_fetched_too():
    files = ["pytorch_lora_weights.safetensors", "adapter_model.safetensors", "lora.ckpt"]
    assert list(filter_repo_objects(files, allow_patterns=download_patterns())) == files[:2]


def test_paths_are_never_asked_of_the_hub(tmp_path, monkeypatch):
    assert resolve_folder("mini/models/editor", "--model") == EDITOR
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mini" / "models" / "editor").mkdir(parents=True)
    assert resolve_folder("mini/models/editor", "--model") == Path("mini/models/editor")
    paths = tmp_path / "nowhere", "nowhere", "./a/b", "mini/models/edittor", "a/b c", "../a/b"
    for name in paths:
        with pytest.raises(FileNotFoundError, match=r"^--model: there is no folder [^,]*$"):
            resolve_folder(name, "--model")


WITHOUT_NETWORK = """
import sys
from onereward_jax.convert import resolve_folder
for name in sys.argv[1:]:
    try:
        print(resolve_folder(name, "config.models.judge"))
    except FileNotFoundError as error:
        print(error)
"""


def test_without_a_network_the_cache_of_the_hub_serves_and_the_rest_is_one_sentence(tmp_path):
    cached, commit = tmp_path / "hub" / "models--owner--model", "0123abcd" * 5
    snapshot = cached / "snapshots" / commit
    shutil.copytree(EDITOR / "vae", snapshot / "autoencoder")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    outcome = subprocess.run(
        [sys.executable, "-c", WITHOUT_NETWORK, "owner/model/autoencoder", "owner/other"]
        + ["owner/model/odd"],
        env={
            "PATH": "",
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": str(PACKAGE.parent),
            "HF_HOME": str(tmp_path),
            "HF_ENDPOINT": "http://127.0.0.1:9",  # nothing listens there
        },
        capture_output=True,
        text=True,
        check=True,
    )
    found, missing, odd = outcome.stdout.splitlines()
    assert found == str(snapshot / "autoencoder")
    assert missing == (
        "config.models.judge: there is no folder owner/other, and the Hugging Face hub, where "
        "owner/other may be, cannot be reached: name a local folder, or try again with a network"
    )
    assert odd == "config.models.judge: the hub's owner/model has no folder odd"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("transformer/config.json", {"num_attention_heads": "two"}, "num_attention_heads is 'two'"),
        ("transformer/config.json", {"joint_attention_dim": 1.5}, "joint_attention_dim is 1.5, a"),
        ("transformer/config.json", {"axes_dims_rope": 8}, "axes_dims_rope is 8, a list"),
        ("vae/config.json", {"latent_channels": None}, "latent_channels is None, an integer"),
        ("vae/config.json", {"norm_num_groups": 0}, "norm_num_groups is 0, an integer from 1"),
        (
            "vae/config.json",
            {"scaling_factor": "x"},
            "scaling_factor is 'x', a number above 0 expected",
        ),
        ("vae/config.json", {"block_out_channels": []}, r"block_out_channels is \[\]"),
        ("scheduler/scheduler_config.json", {"shift": None}, "scheduler: shift is None, a number"),
        ("scheduler/scheduler_config.json", [], "scheduler_config.json holds a list"),
    ],
)
def test_values_of_the_wrong_kind_in_an_editor_are_named(tmp_path, file, content, message):
    folder = Path(shutil.copytree(EDITOR, tmp_path / "editor"))
    found = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(found | content if content else content))
    with pytest.raises(ValueError, match=message):
        read_policy(folder)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", {"text_config": 3}, "text_config is 3, not a JSON object"),
        ("preprocessor_config.json", {"merge_size": 0}, "merge_size is 0, an integer from 1"),
        ("preprocessor_config.json", {"image_mean": "grey"}, "image_mean is 'grey', a list"),
        ("preprocessor_config.json", {"image_std": [1]}, "image_std is not one number per channel"),
        ("onereward_query.json", {}, "query template None, which is not in the file"),
    ],
)
def test_values_of_the_wrong_kind_in_a_judge_are_named(tmp_path, file, content, message):
    folder = Path(shutil.copytree(JUDGE, tmp_path / "judge"))
    path = folder / file
    found = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(found | content))
    with pytest.raises(ValueError, match=message):
        read_reward_model(folder, (64, 64))
