"""LoRA of the judge: parity with peft, only the adapter learns, exact resume, what is written."""

import dataclasses
import functools
import json

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import peft
import pytest
import test_qwen2_5_vl
import test_reward_step
import tiny_models
import torch
import transformers
from compilations import compilations
from flax.traverse_util import flatten_dict
from ml_collections import FrozenConfigDict
from parity import relative_error

from onereward_jax.chain.stage import StageContext
from onereward_jax.common.config_files import load_config
from onereward_jax.convert import (
    QWEN2_5_VL,
    abstract_adapter,
    find_targets,
    init_adapter,
    load_adapter,
    load_params,
    save_params,
    save_peft_adapter,
)
from onereward_jax.models.lora import (
    FACTOR_A,
    Adapted,
    LoraConfig,
    combine,
    uniform_adapter,
)
from onereward_jax.models.lora_merge import merge, merge_into
from onereward_jax.models.qwen2_5_vl import Qwen2_5_VL, Qwen2_5_VLConfig, init_params
from onereward_jax.models.weights import variables
from onereward_jax.parallel import shard_batch
from onereward_jax.reward.judge_loader import abstract_reward_params
from onereward_jax.stages.reward import check
from onereward_jax.training.checkpoint import About, Checkpointer
from onereward_jax.training.metrics import scalars
from onereward_jax.training.reward_step import (
    abstract_reward_state,
    first_reward_state,
    make_answers,
)
from onereward_jax.training.train_state import shardings_of

SINGLE, EIGHT = (1, 1, 1), (2, 2, 2)
mesh_of, pairs, step_of = test_reward_step.mesh_of, test_reward_step.pairs, test_reward_step.step_of
ROOT = test_qwen2_5_vl.Path(__file__).parents[1]
TARGETS = load_config(str(ROOT / "configs" / "mini.py")).reward.lora.targets
CONFIG = dataclasses.replace(test_reward_step.CONFIG, lora=LoraConfig(3, 6.0, TARGETS))
CASE = test_qwen2_5_vl.CASES["one_image_tied"]
PEFT_WARNS = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def torch_logits(model):
    ids, pixels = test_qwen2_5_vl.inputs(CASE)
    ids = torch.tensor(ids, dtype=torch.long)
    with torch.no_grad():
        return model(
            input_ids=ids,
            pixel_values=torch.tensor(pixels.reshape(-1, pixels.shape[-1])),
            image_grid_thw=torch.tensor([CASE.grid] * 2),
            mm_token_type_ids=(ids == test_qwen2_5_vl.IMAGE_TOKEN).int(),
        ).logits.numpy()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A torch model in a folder, its parameters, and a function that gives our logits."""
    folder = tmp_path_factory.mktemp("base")
    test_qwen2_5_vl.torch_model(CASE).save_pretrained(folder)
    architecture = json.loads((folder / "config.json").read_text())
    model = Qwen2_5_VL(Qwen2_5_VLConfig.from_dict(architecture))
    abstract = jax.eval_shape(functools.partial(init_params, model), jax.random.key(0))
    params = load_params(folder, abstract, QWEN2_5_VL)
    ids, pixels = map(jnp.asarray, test_qwen2_5_vl.inputs(CASE))

    @jax.jit
    def logits(weights):
        return model.apply(variables(weights), ids, pixels, CASE.grid, CASE.image_starts)

    return folder, architecture, params, logits


@PEFT_WARNS
@pytest.mark.parametrize("targets", [TARGETS, ".*"], ids=["language", "all"])
def test_what_we_write_is_loaded_by_peft_and_transformers(world, targets, tmp_path):
    """The adapter on the torch base, and the merged folder, have our logits; and back again."""
    folder, architecture, params, logits = world
    shapes = abstract_adapter(params, QWEN2_5_VL, LoraConfig(3, 6.0, targets))
    leaves = {"/".join(path) for path in flatten_dict(shapes)}
    assert any("visual" in name for name in leaves) == (targets == ".*")
    assert not any("patch_embed" in name or "lm_head" in name for name in leaves)
    adapter = uniform_adapter(
        tiny_models.lively(jax.tree.map(lambda leaf: np.zeros(leaf.shape), shapes), 7), 2.0
    )
    ours = logits(Adapted(params, combine([(adapter, 1.0)])))
    assert relative_error(np.asarray(ours), np.asarray(logits(params))) > 0.1

    save_peft_adapter(tmp_path / "adapter", adapter, QWEN2_5_VL, base_model=str(folder))
    base = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(folder)
    theirs = peft.PeftModel.from_pretrained(base.eval(), tmp_path / "adapter")
    assert relative_error(np.asarray(ours), torch_logits(theirs)) < test_qwen2_5_vl.TOLERANCE
    save_params(
        tmp_path / "merged",
        merge(params, combine([(adapter, 1.0)])),
        QWEN2_5_VL,
        config=architecture,
    )
    merged = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path / "merged")
    assert relative_error(np.asarray(ours), torch_logits(merged.eval())) < 2e-4

    theirs.save_pretrained(tmp_path / "theirs")
    for source in ("adapter", "theirs"):
        found = load_adapter(tmp_path / source, params, QWEN2_5_VL)
        for mine, read in zip(jax.tree.leaves(adapter), jax.tree.leaves(found), strict=True):
            np.testing.assert_array_equal(mine, read)


@PEFT_WARNS
def test_alphas_and_ranks_of_single_layers_are_read_in_either_spelling(world, tmp_path):
    folder, _, params, logits = world
    base = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(folder)
    settings = peft.LoraConfig(
        r=2,
        lora_alpha=5,
        target_modules=["q_proj", "down_proj"],
        exclude_modules=r".*visual.*",
        alpha_pattern={r"model\.language_model\.layers\.1\.mlp\.down_proj": 1},
        rank_pattern={r"layers\.0\.self_attn\.q_proj": 4},
    )
    torch.manual_seed(0)
    theirs = peft.get_peft_model(base.eval(), settings)
    for key, parameter in theirs.named_parameters():
        if "lora_" in key:
            torch.nn.init.normal_(parameter, std=0.2)
    theirs.save_pretrained(tmp_path)
    factors = combine([(load_adapter(tmp_path, params, QWEN2_5_VL), 1.0)])
    found = np.asarray(logits(Adapted(params, factors)))
    assert relative_error(found, torch_logits(theirs)) < test_qwen2_5_vl.TOLERANCE


def judge_on(sizes):
    shapes = abstract_reward_params(tiny_models.models().scorer, mesh_of(sizes))
    return jax.device_put(tiny_models.weights()[3], shardings_of(shapes))


def first_state(sizes=SINGLE):
    shapes = abstract_reward_params(tiny_models.models().scorer, mesh_of(sizes))
    key = jax.random.key(3)
    adapter = init_adapter(shapes, QWEN2_5_VL, CONFIG.lora, key, mesh_of(sizes))
    return first_reward_state(CONFIG, adapter, mesh_of(sizes))


def train(state, config=CONFIG, sizes=SINGLE, steps=1):
    base, found = judge_on(sizes), []
    for _ in range(steps):
        state, metrics = step_of(config, sizes)(state, shard_batch(pairs(), mesh_of(sizes)), base)
        found.append((jax.device_get(state), scalars(metrics)))
    return state, found


@pytest.fixture(scope="module")
def history():
    with compilations() as compiled:
        found = train(first_state(), steps=12)[1]
    assert compiled.count("jit(step)") == 1
    return found


def test_the_first_step_is_that_of_full_training_seen_through_the_factors(history):
    """∂/∂B = s Aᵀ ∂/∂W and ∂/∂A = 0 at B = 0; the adapted layers are those of language."""
    full = test_reward_step.first_state(SINGLE)
    full, metrics = step_of(test_reward_step.CONFIG, SINGLE)(
        full, shard_batch(pairs(), mesh_of(SINGLE))
    )
    state, found = history[0]
    assert found["loss"] == pytest.approx(scalars(metrics)["loss"], rel=1e-5)
    start = flatten_dict(jax.device_get(first_state().params))
    kernels = flatten_dict(jax.device_get(optax.tree.get(full.opt_state, "mu")))
    moments = flatten_dict(optax.tree.get(state.opt_state, "mu"))
    layers = find_targets(tiny_models.weights()[3], QWEN2_5_VL, TARGETS)
    assert {path[:-1] for path in moments} == set(layers) and len(layers) == 7
    largest = max(np.abs(leaf).max() for leaf in moments.values())
    for (*module, name), moment in moments.items():
        if name == FACTOR_A:
            assert not moment.any()
            continue
        wanted = CONFIG.lora.scale * np.swapaxes(start[*module, FACTOR_A], -1, -2)
        wanted = wanted @ kernels[*module, "kernel"]
        np.testing.assert_allclose(moment, wanted, rtol=1e-3, atol=1e-5 * largest)


def test_the_adapter_learns_and_the_merged_judge_answers_the_same(history):
    state, metrics = history[-1]
    assert metrics["loss"] < 0.8 * history[0][1]["loss"]
    start = jax.device_get(first_state().params)
    moved = jax.tree.map(lambda new, old: bool(np.any(new != old)), state.params, start)
    assert all(jax.tree.leaves(moved))
    batch, scorer = shard_batch(pairs(), mesh_of(SINGLE)), tiny_models.models().scorer
    answers = make_answers(scorer, CONFIG, mesh_of(SINGLE))(state.params, batch, judge_on(SINGLE))
    factors = combine([(uniform_adapter(state.params, CONFIG.lora.scale), 1.0)])
    merged = merge_into(judge_on(SINGLE), factors, mesh_of(SINGLE))
    plain = make_answers(scorer, test_reward_step.CONFIG, mesh_of(SINGLE))(merged, batch)
    for one, other in zip(answers, plain):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_the_same_on_a_mesh_and_in_parts(history):
    config = dataclasses.replace(CONFIG, microbatches=2)
    _, found = train(first_state(EIGHT), config, EIGHT, steps=2)
    for (state, metrics), (expected, others) in zip(found, history):
        for ours, theirs in zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5)
        assert metrics == pytest.approx(others, rel=2e-4, abs=1e-5)


def test_a_checkpoint_has_the_adapter_only_and_resumes_exactly(history, tmp_path):
    state, _ = train(first_state(), steps=2)
    size = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))
    assert size(state.params) < 0.5 * size(tiny_models.weights()[3])
    about = About(must_match={}, config={})
    data = lambda: iter(grain.MapDataset.range(4).repeat(None).to_iter_dataset())
    scorer = tiny_models.models().scorer
    abstract = abstract_reward_state(scorer, CONFIG, mesh_of(SINGLE))
    with Checkpointer(tmp_path / "checkpoints", about) as checkpointer:
        checkpointer.save(state, data())
    with Checkpointer(tmp_path / "checkpoints", about) as checkpointer:
        restored, _ = checkpointer.restore_newest(abstract, data())
    _, ((found, metrics),) = train(restored)
    assert metrics == history[2][1]
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(history[2][0]), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_layers_that_do_not_exist_are_named_before_the_chain_starts(tmp_path):
    config = load_config(str(ROOT / "configs" / "mini.py"))
    config.reward.lora.update(rank=4, targets="q_proj")
    context = StageContext("reward", FrozenConfigDict(config), tmp_path, mesh_of(SINGLE))
    with pytest.raises(ValueError, match="^config.reward.lora.targets: .*'q_proj' matches"):
        check(context)
