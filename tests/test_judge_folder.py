"""A judge's folder: read back as it was written, sharded or not; what is wrong with it is named."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest
import tiny_models

from onereward_jax.convert import Weights, preprocessor_config, write_judge_folder
from onereward_jax.models.qwen2_5_vl import init_params
from onereward_jax.parallel import make_mesh, mesh_jit
from onereward_jax.reward import TEMPLATE_VERSION, QueryBatch, packaged_template
from onereward_jax.reward.judge_loader import (
    QUERY_FILE,
    load_reward_params,
    read_reward_model,
    write_judge_template,
)
from onereward_jax.tasks import TASKS, Dimension, Task

SIZE = (tiny_models.SIDE, tiny_models.SIDE)
read = functools.partial(read_reward_model, size=SIZE, suffix_length=40, answers_only=True)


def published_config() -> dict:
    """The tiny judge's config.json in the words of transformers."""
    config = dataclasses.asdict(tiny_models.models().scorer.model.config)
    text = config["text_config"]
    text["rope_parameters"] = {
        "rope_type": "default",
        "rope_theta": text.pop("rope_theta"),
        "mrope_section": list(text.pop("mrope_section")),
    }
    return config


@pytest.fixture(scope="module")
def params():
    """Random weights, on the host."""
    model = tiny_models.models().scorer.model
    shapes = nn.meta.unbox(jax.eval_shape(lambda: init_params(model, jax.random.key(0))))
    return tiny_models.lively(jax.tree.map(lambda leaf: np.zeros(leaf.shape), shapes), 5, 0.6)


@pytest.fixture(scope="module")
def written(params, tmp_path_factory) -> Path:
    folder, config = tmp_path_factory.mktemp("judge") / "judge", published_config()
    processor = tiny_models.PROCESSOR
    write_judge_folder(
        folder,
        model=Weights(params, config),
        tokenizer=tiny_models.tokenizer(),
        preprocessor=preprocessor_config(
            config["vision_config"],
            min_pixels=processor.min_pixels,
            max_pixels=processor.max_pixels,
        ),
    )
    return folder


@pytest.fixture
def folder(written, tmp_path) -> Path:
    """A copy to be spoilt."""
    return Path(shutil.copytree(written, tmp_path / "judge"))


def test_scorer_and_queries_are_those_that_were_written(written) -> None:
    judge = read(written)
    assert judge.scorer == tiny_models.models().scorer
    prompts = [tiny_models.PROMPTS[0]] * len(TASKS)
    expected = tiny_models.queries().encode(TASKS, prompts)
    for found, wanted in zip(judge.queries.encode(TASKS, prompts), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_loaded_weights_answer_the_same_on_one_device_and_on_eight(written, params) -> None:
    batch = tiny_models.rl_batch()
    pictures = batch["image"], batch["target"]
    queries = QueryBatch(batch["query_prefix"], batch["query_suffix"], batch["query_suffix_mask"])
    expected = jax.jit(tiny_models.models().scorer.score)(params, *pictures, queries)
    assert np.ptp(np.asarray(expected[0])[queries.dimension_mask]) > 0.01
    for sizes in ((1, 1, 1), (2, 2, 2)):
        mesh = make_mesh(*sizes, devices=jax.devices()[: np.prod(sizes)])
        scorer = read(written).scorer
        loaded = load_reward_params(written, scorer, mesh)
        jax.tree.map(np.testing.assert_array_equal, loaded, params)
        shard = max(leaf.addressable_shards[0].data.size for leaf in jax.tree.leaves(loaded))
        whole = max(leaf.size for leaf in jax.tree.leaves(loaded))
        assert whole == shard * (1 if mesh.size == 1 else sizes[1] * sizes[2])
        found = mesh_jit(scorer.score, mesh)(loaded, *pictures, queries)
        for ours, theirs in zip(found, expected, strict=True):
            mask = queries.dimension_mask
            np.testing.assert_allclose(
                np.asarray(ours)[mask], np.asarray(theirs)[mask], rtol=1e-4, atol=1e-5
            )


def test_a_judge_answers_only_the_template_it_was_trained_with(folder) -> None:
    """In the words that its folder holds, whatever those of the package are."""
    assert not (folder / QUERY_FILE).exists()
    assert read(folder).queries.template == packaged_template()
    words = packaged_template().words | {Dimension.AESTHETICS: "beauty"}
    template = dataclasses.replace(packaged_template(), name="mine", words=words)
    write_judge_template(folder, template)
    queries = read(folder).queries
    assert queries.template == template and template.version.startswith("mine-")
    asked = queries.encode_dimensions([Task.FILL], [Dimension.AESTHETICS], [""])
    said = tiny_models.tokenizer().decode(asked.suffix[0, 0][asked.suffix_mask[0, 0]])
    assert said == template.suffix_text(Dimension.AESTHETICS, "") and "beauty" in said

    stored = json.loads((folder / QUERY_FILE).read_text())
    stored["template"]["head"] += "!"
    (folder / QUERY_FILE).write_text(json.dumps(stored))
    with pytest.raises(ValueError, match=f"template '{template.version}', but the file"):
        read(folder)
    # as written before there were templates in files: the version alone
    (folder / QUERY_FILE).write_text(json.dumps({"template_version": TEMPLATE_VERSION}))
    assert read(folder).queries.template == packaged_template()
    (folder / QUERY_FILE).write_text(json.dumps({"template_version": "of last year"}))
    with pytest.raises(ValueError, match="template 'of last year', which is not in the file"):
        read(folder)


@pytest.mark.parametrize(
    "name", ["config.json", "preprocessor_config.json", "tokenizer_config.json"]
)
def test_a_missing_file_is_named(folder, name) -> None:
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"judge/{name} does not exist"):
        read(folder)


def test_missing_weights_are_named(folder) -> None:
    (folder / "model.safetensors").unlink()
    mesh = make_mesh(devices=jax.devices()[:1])
    with pytest.raises(FileNotFoundError, match="no weights in .*judge: .*model.safetensors"):
        load_reward_params(folder, read(folder).scorer, mesh)
