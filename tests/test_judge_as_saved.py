"""Judges as transformers of any version, peft and others saved them: read alike, or refused.

"Alike" is P("Yes") of transformers itself on the same folder.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import peft
import pytest
import torch
import transformers
from PIL import Image
from safetensors.numpy import load_file, save_file
from torch_judge import TorchJudge, edit, saved_judge

from onereward_jax.models.qwen2_5_vl import Qwen2_5_VLConfig
from onereward_jax.parallel import make_mesh
from onereward_jax.reward.judge_folder import written_config
from onereward_jax.reward.judge_loader import judge_template, load_reward_params, read_reward_model
from onereward_jax.tasks import Dimension, Task

SIDE = 32
QUESTION = (Task.FILL, Dimension.TEXT_ALIGNMENT, "a red apple")
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing")  # peft's own

MESH = make_mesh(devices=jax.devices()[:1])
HEAD, TABLE = "lm_head.weight", "model.embed_tokens.weight"

jitted = jax.jit(lambda scorer, *inputs: scorer.score(*inputs)[0], static_argnums=0)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> TorchJudge:
    return saved_judge(tmp_path_factory.mktemp("saved") / "judge")


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    noise = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
    return [Image.fromarray(one) for one in noise]


@pytest.fixture
def folder(saved: TorchJudge, tmp_path: Path) -> Path:
    """A copy to be changed."""
    return Path(shutil.copytree(saved.path, tmp_path / "judge"))


def answer(folder: Path, pictures: list[Image.Image]) -> float:
    """P("Yes") by our reading of the folder."""
    judge = read_reward_model(folder, (SIDE, SIDE))
    params = load_reward_params(folder, judge.scorer, MESH)
    task, dimension, prompt = QUESTION
    query = judge.queries.encode_dimensions([task], [dimension], [prompt])
    both = [jnp.asarray(np.asarray(one)[None] / 127.5 - 1, jnp.float32) for one in pictures]
    return float(np.exp(jitted(judge.scorer, params, *both, query)[0, 0]))


def opened(folder: Path, saved: TorchJudge) -> TorchJudge:
    """The model as transformers reads it from `folder`."""
    model = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(folder)
    return TorchJudge(folder, model.eval(), saved.tokenizer, saved.processor)


def tensors_of(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "model.safetensors")


def write_tensors(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def set_flag(values: dict[str, Any], flag: bool | None) -> None:
    """Sets or takes away `tie_word_embeddings`."""
    values.pop("tie_word_embeddings", None)
    if flag is not None:
        values["tie_word_embeddings"] = flag


@pytest.mark.parametrize("head", ["absent", "equal", "different"])
def test_flags_that_contradict_the_files_are_decided_as_transformers_does(
    folder: Path, saved: TorchJudge, pictures: list[Image.Image], head: str
) -> None:
    """In all nine combinations of the outer and the inner flag; or refused, if nothing is there."""
    tensors = tensors_of(folder)
    if head != "absent":
        shift = 0 if head == "equal" else 7
        tensors[HEAD] = np.roll(tensors[TABLE], shift, 0)
        write_tensors(folder, tensors)
    found = []
    for outer in (True, False, None):
        for inner in (True, False, None):

            def flags(config: dict[str, Any], outer=outer, inner=inner) -> None:
                set_flag(config, outer)
                set_flag(config["text_config"], inner)

            edit(folder / "config.json", flags)
            if head == "absent" and not (outer or inner):
                with pytest.raises(ValueError, match="has no lm_head.weight, but its config.json"):
                    answer(folder, pictures)
                continue
            expected = opened(folder, saved).probability(*pictures, *QUESTION)
            found.append(answer(folder, pictures))
            assert found[-1] == pytest.approx(expected, abs=1e-4), (outer, inner)
            tied = written_config(folder)  # for a copy, both flags tell the truth
            assert tied["tie_word_embeddings"] == tied["text_config"]["tie_word_embeddings"]
            assert tied["tie_word_embeddings"] == (head == "absent") or head != "absent"
            if head == "different":
                assert not tied["tie_word_embeddings"]
    assert np.ptp(found) < 1e-6


def test_an_own_head_and_a_tied_one_answer_differently(
    folder: Path, saved: TorchJudge, pictures: list[Image.Image]
) -> None:
    """So the test above sees which of them was used."""
    before, tensors = answer(folder, pictures), tensors_of(folder)
    tensors[HEAD] = np.roll(tensors[TABLE], 7, 0)
    write_tensors(folder, tensors)
    assert abs(answer(folder, pictures) - before) > 0.01
    assert before == pytest.approx(saved.probability(*pictures, *QUESTION), abs=1e-4)


SPELLINGS = {
    "4.49": (),
    "4.52": ((r"^model\.", "model.language_model."), (r"^visual\.", "model.visual.")),
    "vllm": ((r"^model\.", "language_model.model."),),
    "base model": ((r"^model\.", "language_model."),),
    "DDP": ((r"^", "module."),),
    "FSDP": ((r"layers\.(\d+)\.", r"layers.\1._fsdp_wrapped_module."),),
    "peft, merged": ((r"^", "base_model.model."),),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_names_of_every_version_and_wrapper_are_read(
    folder: Path, saved: TorchJudge, pictures: list[Image.Image], name: str
) -> None:
    tensors = {}
    for key, value in tensors_of(folder).items():
        for pattern, replacement in SPELLINGS[name]:
            key = re.sub(pattern, replacement, key)
        tensors[key] = value
    write_tensors(folder, tensors)
    assert answer(folder, pictures) == pytest.approx(
        saved.probability(*pictures, *QUESTION), abs=1e-4
    )


def flat(config: dict[str, Any]) -> None:
    """As 4.49 to 4.51 wrote it: the language model's fields outside, other names for some."""
    text = config.pop("text_config")
    rope = text.pop("rope_parameters")
    text.pop("model_type")
    text.pop("layer_types", None)
    section = rope["mrope_section"]
    config.update(text, rope_theta=rope["rope_theta"], torch_dtype="bfloat16")
    config["rope_scaling"] = {"type": "default", "rope_type": "default", "mrope_section": section}
    config["tie_word_embeddings"] = True
    vision = config["vision_config"]
    vision.pop("rope_parameters", None)
    vision.update(
        in_chans=vision.pop("in_channels"), spatial_patch_size=14, model_type="qwen2_5_vl"
    )


def typed(config: dict[str, Any]) -> None:
    """As the released files: rope_scaling of type mrope."""
    flat(config)
    config["rope_scaling"] = {"type": "mrope", "mrope_section": [1, 1, 2]}


def unnamed(config: dict[str, Any]) -> None:
    """transformers goes by the model_type."""
    config.pop("architectures", None)


@pytest.mark.parametrize("change", [flat, typed, unnamed])
def test_configs_of_every_version_mean_the_same(
    folder: Path, pictures: list[Image.Image], change: Callable[[dict[str, Any]], None]
) -> None:
    before = Qwen2_5_VLConfig.from_dict(json.loads((folder / "config.json").read_text()))
    edit(folder / "config.json", change)
    after = Qwen2_5_VLConfig.from_dict(json.loads((folder / "config.json").read_text()))
    assert after == before
    theirs = transformers.Qwen2_5_VLConfig.from_pretrained(folder)
    assert theirs.text_config.rope_parameters["rope_theta"] == after.text_config.rope_theta
    judge = read_reward_model(folder, (SIDE, SIDE))
    load_reward_params(folder, judge.scorer, MESH)


def test_fields_left_out_have_the_defaults_of_transformers() -> None:
    ours, theirs = (
        Qwen2_5_VLConfig.from_dict({"vision_config": {"out_hidden_size": 8192}}),
        transformers.Qwen2_5_VLConfig(vision_config={"out_hidden_size": 8192}),
    )
    for part in ("text_config", "vision_config"):
        for name, value in vars(getattr(ours, part)).items():
            stated = getattr(theirs, part).to_dict()
            if name in ("rope_theta", "mrope_section"):
                continue
            assert value == (tuple(v) if isinstance(v := stated[name], list) else v), name
    assert ours.text_config.rope_theta == theirs.text_config.rope_parameters["rope_theta"]
    assert ours.image_token_id == theirs.image_token_id


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "qwen2_vl"}, "describes a 'qwen2_vl'; judges are Qwen2.5-VL"),
        ({"model_type": "llava"}, "describes a 'llava'; judges are Qwen2.5-VL"),
        (
            {"architectures": ["Qwen2_5_VLForSequenceClassification"]},
            "describes a Qwen2_5_VLForSequenceClassification; expected",
        ),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "quantised by 'awq'"),
        ({"quantization_config": {"load_in_4bit": True}}, "quantised by 'bitsandbytes'"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantised by 'fp8'"),
    ],
)
def test_other_models_and_quantised_ones_are_refused_in_a_sentence(
    folder: Path, change: dict[str, Any], message: str
) -> None:
    edit(folder / "config.json", lambda config: config.update(change))
    with pytest.raises(ValueError, match=message) as caught:
        read_reward_model(folder, (SIDE, SIDE))
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("suffix", "message"),
    [
        ("qweight", "quantised by 'AWQ or GPTQ'"),
        ("weight_scale_inv", "quantised by 'fp8'"),
        ("weight_packed", "quantised by 'compressed-tensors'"),
        ("SCB", "quantised by 'bitsandbytes'"),
    ],
)
def test_quantised_tensors_are_known_without_a_word_in_the_config(
    folder: Path, suffix: str, message: str
) -> None:
    tensors = tensors_of(folder)
    tensors[f"model.layers.0.mlp.up_proj.{suffix}"] = np.zeros((4, 4), np.int32)
    write_tensors(folder, tensors)
    with pytest.raises(ValueError, match=message) as caught:
        read_reward_model(folder, (SIDE, SIDE))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("judge-Q8_0.gguf", "GGUF files are not read: name the transformers folder"),
        ("pytorch_model.bin", "pickles are not read: load it with transformers and save it"),
    ],
)
def test_weights_of_other_formats_are_named(folder: Path, name: str, message: str) -> None:
    scorer = read_reward_model(folder, (SIDE, SIDE)).scorer
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(FileNotFoundError, match=f"{name}: {message}"):
        load_reward_params(folder, scorer, MESH)


def test_a_single_file_counts_before_a_stale_index(
    folder: Path, saved: TorchJudge, pictures: list[Image.Image]
) -> None:
    index = {"metadata": {}, "weight_map": {"x": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    expected = opened(folder, saved).probability(*pictures, *QUESTION)
    assert answer(folder, pictures) == pytest.approx(expected, abs=1e-4)


def trained_adapter(saved: TorchJudge, folder: Path, **options: Any) -> None:
    """An adapter of peft for a judge, with factors that change its answers."""
    model = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(saved.path)
    settings = peft.LoraConfig(r=2, lora_alpha=8, target_modules=r".*language_model.*(q|up)_proj")
    for name, value in options.items():
        setattr(settings, name, value)
    adapted = peft.get_peft_model(model, settings)
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.5 * torch.randn_like(parameter))
    adapted.save_pretrained(folder)


def test_an_adapter_is_merged_into_the_base_that_it_names(
    saved: TorchJudge, pictures: list[Image.Image], tmp_path: Path
) -> None:
    adapter = tmp_path / "adapter"
    trained_adapter(saved, adapter)
    base = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(saved.path)
    theirs = peft.PeftModel.from_pretrained(base, adapter).eval()
    merged = TorchJudge(adapter, theirs, saved.tokenizer, saved.processor)
    expected = merged.probability(*pictures, *QUESTION)
    assert abs(expected - saved.probability(*pictures, *QUESTION)) > 0.01
    assert answer(adapter, pictures) == pytest.approx(expected, abs=1e-4)
    assert judge_template(adapter).version == judge_template(saved.path).version

    # Beside a whole model both count, as for transformers.
    both = Path(shutil.copytree(saved.path, tmp_path / "both"))
    shutil.copytree(adapter, both, dirs_exist_ok=True)
    assert answer(both, pictures) == pytest.approx(expected, abs=1e-4)


def no_base(folder: Path) -> None:
    edit(folder / "adapter_config.json", lambda config: config.pop("base_model_name_or_path"))


def lost_base(folder: Path) -> None:
    edit(
        folder / "adapter_config.json",
        lambda config: config.update(base_model_name_or_path="./nowhere"),
    )


def other_kind(folder: Path) -> None:
    edit(folder / "adapter_config.json", lambda config: config.update(peft_type="LOKR"))


def no_weights(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()


def whole_modules(folder: Path) -> None:
    edit(folder / "adapter_config.json", lambda config: config.update(modules_to_save=["lm_head"]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (no_base, "adapter_config.json names no base"),
        (lost_base, "base_model_name_or_path: there is no folder nowhere"),
        (other_kind, "peft's kind 'LOKR'; only LORA is read: merge it with"),
        (no_weights, "has an adapter_config.json, but no adapter_model.safetensors"),
        (whole_modules, "modules_to_save .*lm_head.*: merge it with peft's"),
    ],
)
def test_adapters_that_cannot_be_read_are_named(
    saved: TorchJudge, tmp_path: Path, change: Callable[[Path], None], message: str
) -> None:
    trained_adapter(saved, tmp_path / "adapter")
    change(tmp_path / "adapter")
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        read_reward_model(tmp_path / "adapter", (SIDE, SIDE))
    assert "\n" not in str(caught.value)


def test_an_adapter_config_beside_a_whole_model_is_not_ignored(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match="remove adapter_config.json if the whole model"):
        read_reward_model(folder, (SIDE, SIDE))


def test_an_adapter_that_is_not_merged_is_named(folder: Path) -> None:
    tensors = {
        re.sub(r"q_proj\.weight", "q_proj.base_layer.weight", key): value
        for key, value in tensors_of(folder).items()
    }
    scorer = read_reward_model(folder, (SIDE, SIDE)).scorer
    write_tensors(folder, tensors)
    with pytest.raises(ValueError, match="an adapter that is not merged .*: merge it with peft's"):
        load_reward_params(folder, scorer, MESH)
