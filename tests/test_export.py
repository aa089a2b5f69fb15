"""What `export` writes: diffusers and transformers open it, same bits, same answers, true cards."""

import functools
import json
import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import FluxFillPipeline, FluxTransformer2DModel
from huggingface_hub import ModelCard, constants
from ml_collections import FrozenConfigDict
from PIL import Image
from safetensors.numpy import load_file, save_file
from transformers import AutoImageProcessor, AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from onereward_jax import convert_weights, edit
from onereward_jax.chain import StageContext
from onereward_jax.common.config_files import check_overrides, load_config
from onereward_jax.convert import (
    QWEN2_5_VL,
    abstract_adapter,
    is_adapter,
    read_single_file,
    save_peft_adapter,
)
from onereward_jax.convert.hub import PACKAGE
from onereward_jax.data.shard_writer import write_triplets
from onereward_jax.evaluation.gsb import GoodSameBad
from onereward_jax.evaluation.report import ReportInputs
from onereward_jax.evaluation.report.summary import summarize
from onereward_jax.mini.scene_source import MiniWorldSource
from onereward_jax.models.lora import LoraConfig, uniform_adapter
from onereward_jax.parallel import make_mesh
from onereward_jax.policy import embed_prompts, load_policy, load_text_encoder
from onereward_jax.policy.policy_loader import transformer_config
from onereward_jax.reward import QueryBatch, packaged_template
from onereward_jax.reward.judge_loader import (
    abstract_reward_params,
    load_reward_params,
    read_reward_model,
    write_judge_template,
)
from onereward_jax.stages.export import run
from onereward_jax.stages.export.card_origin import origin_of
from onereward_jax.stages.reward import ADAPTER
from onereward_jax.tasks import DIMENSIONS, Dimension, Task

ROOT = PACKAGE.parent
EDITOR, JUDGE = PACKAGE / "mini" / "models" / "editor", PACKAGE / "mini" / "models" / "judge"
WEIGHTS = "diffusion_pytorch_model"
ONE_DEVICE = make_mesh(devices=jax.devices()[:1])
SIZE, STEPS, TEXT = (64, 64), 2, 12
COUNTS = {"train": {Task.FILL: 3, Task.REMOVAL: 2}, "test": {Task.REMOVAL: 1}}
GSB = GoodSameBad(good=5, same=3, bad=2, difference=0.3, low=0.1, high=0.5, triplets=10)
ACCURACY = dict(pairs=41, accuracy=0.75, single_order_accuracy=0.7, position_bias=-0.02)


def config(**export) -> FrozenConfigDict:
    """The mini world's, with another section `export`."""
    found = load_config(str(ROOT / "configs" / "mini.py"))
    found.export.update(export)
    return FrozenConfigDict(found)


def trained_tensors(name: str, seed: int) -> dict[str, np.ndarray]:
    """The mini model's tensors, each moved a little: what a training may have made of them."""
    rng = np.random.default_rng(seed)
    (path,) = (PACKAGE / "mini" / "models" / name).glob("*.safetensors")
    tensors = load_file(path)
    return {key: value + 0.01 * rng.normal(size=value.shape).astype(value.dtype)
            for key, value in tensors.items()}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A folder with `runs/mini`: what the stages before left there, and two exports of it."""
    root = tmp_path_factory.mktemp("root")
    work = root / "runs" / "mini"
    for seed, name in enumerate(("policy", "ema")):
        (work / "rl" / name).mkdir(parents=True)
        shutil.copy(EDITOR / "transformer" / "config.json", work / "rl" / name)
        save_file(
            trained_tensors("editor/transformer", seed),
            work / "rl" / name / f"{WEIGHTS}.safetensors",
        )
    shutil.copytree(JUDGE, work / "reward" / "judge")
    save_file(trained_tensors("judge", 2), work / "reward" / "judge" / "model.safetensors")
    write_judge_template(work / "reward" / "judge", packaged_template())
    judge = read_reward_model(JUDGE, (32, 32)).scorer
    factors = abstract_adapter(
        abstract_reward_params(judge, ONE_DEVICE), QWEN2_5_VL, LoraConfig(2, 2.0, ".*q_proj")
    )
    factors = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), factors)
    adapter = uniform_adapter(factors, 1.0)
    save_peft_adapter(work / "reward" / ADAPTER, adapter, QWEN2_5_VL, base_model="some/base")
    rows = [
        {"task": task, "dimension": dimension, "inconsistent": 0.1, **ACCURACY}
        for task, dimensions in DIMENSIONS.items()
        for dimension in dimensions
    ]
    (work / "reward" / "accuracy.json").write_text(json.dumps({"rows": rows}))
    write_triplets(work / "data", MiniWorldSource(COUNTS, image_size=32, seed=1))
    empty = dict(rewards={}, gains={}, judge={}, monitors={}, metrics={}, grids={}, settings={})
    inputs = ReportInputs(title="mini", gsb={"by the oracle": {Task.FILL: GSB}}, **empty)
    (work / "evaluate" / "report").mkdir(parents=True)
    text = json.dumps(summarize(inputs))
    (work / "evaluate" / "report" / "summary.json").write_text(text)
    for stage, settings in (
        ("export", config(weights="policy", shard_gb=0.001)),
        (
            "alone",
            config(dtype="bfloat16", editor="transformer", comfyui="bfloat16"),
        ),
    ):
        (work / stage).mkdir()
        mesh = make_mesh(data=1, fsdp=4, tensor=2)
        results = run(StageContext(stage, settings, work, mesh))
        assert results == {name: f"{stage}/{name}" for name in results}
        assert {path.name for path in (work / stage).iterdir()} == set(results)
    return root


@pytest.fixture(scope="module")
def work(root) -> Path:
    return root / "runs" / "mini"


def read_all(folder: Path) -> dict[str, np.ndarray]:
    """All tensors of a folder's files."""
    return {
        key: value
        for path in folder.glob("*.safetensors")
        for key, value in load_file(path).items()
    }


def assert_same_bits(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key].dtype == value.dtype, key
        assert found[key].tobytes() == value.tobytes(), key


def test_import_and_export_change_no_bit_whatever_the_shards(work):
    editor, judge = work / "export" / "editor", work / "export" / "judge"
    for written, source in (
        (editor / "transformer", work / "rl" / "policy"),
        (judge, work / "reward" / "judge"),
    ):
        assert len(list(written.glob("*-of-*.safetensors"))) > 3
        assert_same_bits(read_all(written), read_all(source))
        config, expected = (json.loads((f / "config.json").read_text()) for f in (written, source))
        assert config == expected
    for name in ("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"):
        for path in (EDITOR / name).iterdir():
            assert (editor / name / path.name).read_bytes() == path.read_bytes()

    alone = read_all(work / "alone" / "transformer")
    rounded = {k: v.astype(jnp.bfloat16) for k, v in read_all(work / "rl" / "ema").items()}
    assert_same_bits(alone, rounded)


def test_the_adapter_of_a_judge_is_exported_too(work):
    written, source = work / "export" / ADAPTER, work / "reward" / ADAPTER
    assert is_adapter(written) and not (work / "export" / "judge" / ADAPTER).exists()
    for path in source.iterdir():
        assert (written / path.name).read_bytes() == path.read_bytes()


def test_the_transformer_alone_goes_with_any_pipeline(work):
    transformer = FluxTransformer2DModel.from_pretrained(
        work / "alone" / "transformer", torch_dtype=torch.bfloat16
    )
    pipeline = FluxFillPipeline.from_pretrained(EDITOR, transformer=transformer)
    assert pipeline.transformer is transformer
    _, params = load_policy(EDITOR, ONE_DEVICE, transformer=work / "alone" / "transformer")
    ours = np.asarray(params.transformer["proj_out"]["kernel"])
    np.testing.assert_array_equal(ours.T, transformer.proj_out.weight.detach().float().numpy())


def test_the_file_for_comfyui_has_the_same_weights_and_says_where_it_goes(work):
    (path,) = (work / "alone" / "comfyui" / "diffusion_models").iterdir()
    assert path.name == "onereward_ema_bf16.safetensors"
    found = {name: tensor[()] for name, tensor in read_single_file(path).tensors.items()}
    assert_same_bits(found, read_all(work / "alone" / "transformer"))
    assert transformer_config(EDITOR, path) == transformer_config(EDITOR)
    card = (work / "alone" / "comfyui" / "README.md").read_text()
    assert f"Copy `diffusion_models/{path.name}` to `ComfyUI/models/diffusion_models`" in card
    assert "cfg 4.0" in card or "cfg 2.0" in card


def test_diffusers_edits_as_we_do(work):
    """From the prompt's words to the picture, with the exported folder on both sides."""
    folder = work / "export" / "editor"
    pipeline = FluxFillPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    channels = pipeline.vae.config.latent_channels
    with torch.no_grad():  # it samples from the posterior, we take its mean
        pipeline.vae.encoder.conv_out.weight[channels:] = 0
        pipeline.vae.encoder.conv_out.bias[channels:] = -30
    rng = np.random.default_rng(0)
    image = rng.uniform(-1, 1, (1, *SIZE, 3)).astype(np.float32)
    mask = np.zeros((1, *SIZE, 1), np.float32)
    mask[:, 16:48, 8:56] = 1

    editor, params = load_policy(folder, ONE_DEVICE)
    encoder, text = load_text_encoder(folder, ONE_DEVICE, max_sequence_length=TEXT)
    ((_, embeds),) = embed_prompts(encoder, text, ["a red apple"], ONE_DEVICE, 1)
    noise = editor.noise(jax.random.key(0), 1, SIZE)
    sigmas = editor.sigmas(STEPS, SIZE)

    @jax.jit
    def edit(params, noise):
        condition = editor.encode_condition(params.vae, jnp.asarray(image), jnp.asarray(mask))
        found = editor.denoise(params.transformer, noise, condition, embeds, None, sigmas, 0, STEPS)
        return editor.decode(params.vae, found, SIZE)

    found = np.clip(np.asarray(edit(params, noise)) / 2 + 0.5, 0, 1)
    channels_first = lambda x: torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    expected = pipeline(
        prompt="a red apple",
        image=channels_first(image / 2 + 0.5),
        mask_image=channels_first(mask),
        height=SIZE[0],
        width=SIZE[1],
        num_inference_steps=STEPS,
        guidance_scale=1.0,
        latents=torch.from_numpy(np.array(noise)),
        max_sequence_length=TEXT,
        output_type="np",
    ).images
    assert np.ptp(expected) > 0.5
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_transformers_judges_as_we_do_by_the_words_of_the_folder(work):
    """Model, tokenizer, image processor and query come from the exported files alone."""
    folder = work / "export" / "judge"
    side = 112  # what the processor resizes to
    rng = np.random.default_rng(1)
    pictures = [rng.integers(0, 256, (side, side, 3), np.uint8) for _ in range(2)]

    judge = read_reward_model(folder, (side, side), suffix_length=40)
    params = load_reward_params(folder, judge.scorer, ONE_DEVICE)
    queries = judge.queries.encode([Task.FILL], ["a red apple"])
    ours = [jnp.asarray(picture[None] / 127.5 - 1, jnp.float32) for picture in pictures]
    log_yes, log_no = jax.jit(judge.scorer.score)(params, *ours, QueryBatch(*queries))

    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    template = json.loads((folder / "onereward_query.json").read_text())
    images = AutoImageProcessor.from_pretrained(folder)(
        [Image.fromarray(picture) for picture in pictures], return_tensors="pt"
    )
    tokens = int(images["image_grid_thw"][0].prod()) // 4
    yes, no = (tokenizer.convert_tokens_to_ids(answer) for answer in template["answers"])
    asked = template["queries"][Task.FILL]
    assert list(asked) == list(DIMENSIONS[Task.FILL])
    for column, query in enumerate(asked.values()):
        text = query.replace("<|image_pad|>", tokens * "<|image_pad|>")
        inputs = tokenizer(text.replace("{prompt}", "a red apple"), return_tensors="pt")
        is_image = inputs["input_ids"] == model.config.image_token_id
        with torch.no_grad():
            logits = model(**inputs, **images, mm_token_type_ids=is_image.int()).logits
        log_p = torch.log_softmax(logits[0, -1], -1)
        assert log_yes[0, column] == pytest.approx(log_p[yes].item(), rel=5e-4)
        assert log_no[0, column] == pytest.approx(log_p[no].item(), rel=5e-4)


def test_the_cards_say_what_was_measured_and_what_it_was_made_from(work):
    card = ModelCard.load(work / "export" / "editor" / "README.md")
    assert card.data.to_dict() == {
        "license": "apache-2.0",
        "library_name": "diffusers",
        "pipeline_tag": "image-to-image",
        "tags": card.data.tags,
    }
    assert "onereward" in card.data.tags
    for line in (
        "| image fill | 3 | 0 |",
        "| object removal | 2 | 1 |",
        "| image fill | 10 | 50.0 % | 30.0 % | 20.0 % | +30.0 % [+10.0, +50.0] |",
        "an oracle that knows how each scene was composed, made to err in 5% of the pairs.",
    ):
        assert line in card.text
    assert "—" not in card.text and "{{" not in card.text
    settings = json.loads(re.search(r"```json\n(.*)```", card.text, re.DOTALL)[1])
    assert settings["rl"]["steps"] == config().rl.steps
    assert settings["export"]["weights"] == "policy"

    judge = ModelCard.load(work / "export" / "judge" / "README.md")
    assert judge.data.library_name == "transformers"
    assert judge.data.pipeline_tag == "image-text-to-text"
    row = f"| {Task.REMOVAL.title} | {Dimension.REMOVAL_QUALITY.title} | 41 | 75.0 % | 70.0 % |"
    for part in (row + " -0.020 |", "`onereward_query.json`", "`model.safetensors.index.json`"):
        assert part in judge.text


def write_adapter(folder: Path) -> None:
    """One of rank 2, as diffusers writes it, for one linear layer."""
    name = "transformer_blocks.0.attn.to_q"
    rows, columns = trained_tensors("editor/transformer", 0)[f"{name}.weight"].shape
    folder.mkdir(parents=True)
    factors = {"lora_A": np.ones((2, columns)), "lora_B": np.ones((rows, 2))}
    save_file(
        {f"transformer.{name}.{key}.weight": np.float32(value) for key, value in factors.items()},
        folder / "pytorch_lora_weights.safetensors",
    )


def test_the_pages_code_runs_and_its_flags_exist(root, monkeypatch):
    pages = ("checkpoints", "lora")
    text = "\n".join((ROOT / "docs" / f"{name}.md").read_text() for name in pages)
    monkeypatch.chdir(root)
    write_adapter(root / "runs" / "lora" / "rl" / "ema")
    for name in ("sign", "word"):
        Image.new("RGB", (64, 64), "white").save(f"{name}.png")
    scope = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, scope)
    assert (root / "runs" / "mini" / "mine" / "config.json").is_file()
    assert [picture.size for picture in scope["pictures"]] == [(64, 64)]
    assert "{prompt}" not in scope["query"] and "coherence" in scope["query"]
    commands = re.findall(r"^    (python (?:.*\\\n)*.*)$", text, re.MULTILINE)
    assert len(commands) >= 9
    for command in commands:
        _, _, module, *flags = command.replace("\\\n", " ").split()
        if module == "onereward_jax.edit":
            edit.parser().parse_args(flags)  # ends the test when there is no such flag
            continue
        if module == "onereward_jax.convert_weights":
            convert_weights.parser().parse_args(flags)
            continue
        assert module == "onereward_jax.main"
        (path,) = (flag.removeprefix("--config=") for flag in flags if "--config=" in flag)
        settings = load_config(str(ROOT / path))
        check_overrides(["main", *flags], settings)


def test_a_card_names_the_base_that_the_run_started_from_and_its_licence(
    work, tmp_path, monkeypatch
):
    shutil.copytree(work, tmp_path / "run", ignore=shutil.ignore_patterns("export", "alone"))
    shutil.rmtree(tmp_path / "run" / "evaluate")
    (tmp_path / "run" / "export").mkdir()
    hub, commit = tmp_path / "hub", "0123456789abcdef" + 24 * "0"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub))
    fetched = hub / "models--black-forest-labs--FLUX.1-Fill-dev" / "snapshots" / commit
    shutil.copytree(EDITOR, fetched)
    large = load_config(str(ROOT / "configs" / "flux_fill_dev.py"))
    settings = config(editor="transformer", editor_card=large.export.editor_card).as_configdict()
    settings.stages = ("data", "reward", "rl", "export")
    settings.models.editor = str(fetched)
    context = functools.partial(StageContext, "export", workdir=tmp_path / "run", mesh=ONE_DEVICE)
    run(context(config=FrozenConfigDict(settings)))
    card = ModelCard.load(tmp_path / "run" / "export" / "transformer" / "README.md")
    assert card.data.base_model == "black-forest-labs/FLUX.1-Fill-dev"
    assert card.data.license == "other"
    assert card.data.license_name == "flux-1-dev-non-commercial-license"
    assert "This run was not evaluated." in card.text
    assert "(commit 0123456789ab)" in card.text

    def named(editor: str | Path, stated: str) -> str:
        settings.models.editor, settings.export.editor_card.base_model = str(editor), stated
        return origin_of(context(config=FrozenConfigDict(settings)), "editor").base_model

    local = shutil.copytree(EDITOR, tmp_path / "local")
    assert named(local, "") == "" and named("mini/models/editor", "") == ""
    assert named(local, "some/base") == "some/base"  # the config says so
    for editor in (fetched, "mini/models/editor"):
        with pytest.raises(ValueError, match="base_model is some/base, but config.models.editor"):
            named(editor, "some/base")

    for field, message in (
        ({"weights": "best"}, "config.export.weights is 'best': choose one of policy, ema"),
        ({"editor": "all"}, "config.export.editor is 'all': choose one of pipeline, transformer"),
    ):
        with pytest.raises(ValueError, match=message):
            run(context(config=config(**field)))
