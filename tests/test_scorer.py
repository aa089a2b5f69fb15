"""The scorer: shared computation equals the plain one and transformers; gradients; invariances."""

import dataclasses
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from torch_judge import random_judge

from onereward_jax.convert import QWEN2_5_VL, load_params
from onereward_jax.mini.mini_tokenizers import qwen_tokenizer
from onereward_jax.models.qwen2_5_vl import Qwen2_5_VL, Qwen2_5_VLConfig, init_params
from onereward_jax.reward import (
    ImageProcessor,
    QueryBatch,
    QueryTokenizer,
    Scorer,
    packaged_template,
)
from onereward_jax.tasks import Task

SIDE = 32
PROCESSOR = ImageProcessor(patch_size=8, min_pixels=48 * 48, max_pixels=48 * 48)
TASKS = [Task.FILL, Task.REMOVAL]
PROMPTS = ["a red apple", "remove"]


@dataclasses.dataclass(frozen=True)
class Judge:
    """A tiny judge in both frameworks."""

    scorer: Scorer
    params: dict
    theirs: transformers.Qwen2_5_VLForConditionalGeneration
    queries: QueryBatch


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    folder = tmp_path_factory.mktemp("judge")
    tokenizer = qwen_tokenizer(packaged_template().texts())
    queries = QueryTokenizer(tokenizer, PROCESSOR.tokens_per_image(SIDE, SIDE), suffix_length=40)
    theirs = random_judge(tokenizer, 0.2)
    theirs.save_pretrained(folder)
    model = Qwen2_5_VL(Qwen2_5_VLConfig.from_dict(theirs.config.to_dict()))
    abstract = jax.eval_shape(partial(init_params, model), jax.random.key(0))
    params = load_params(folder, abstract, QWEN2_5_VL)
    scorer = Scorer(model, PROCESSOR, queries.layout)
    return Judge(scorer, params, theirs, queries.encode(TASKS, PROMPTS))


@pytest.fixture(scope="module")
def images() -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(3)
    pair = rng.uniform(-0.9, 0.9, (2, 2, SIDE, SIDE, 3)).astype(np.float32)
    return jnp.asarray(pair[0]), jnp.asarray(pair[1])


def value_and_gradients(method):
    """Jitted (params, images_a, images_b, queries) -> ((loss, answers), gradients of all three)."""

    def loss(params, images_a, images_b, queries):
        log_yes, log_no = method(params, images_a, images_b, queries)
        asked = queries.dimension_mask
        return jnp.sum(jnp.where(asked, log_yes - 0.3 * log_no, 0.0)), (log_yes, log_no)

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))


@pytest.fixture(scope="module")
def shared(judge, images):
    """Answers and gradients to (params, images_a, images_b) of the shared computation, as numpy:
    of the pair as it is, and of the pair in the other order."""
    function = value_and_gradients(judge.scorer.score)
    queries = jax.tree.map(jnp.asarray, judge.queries)
    pairs = (images, images[::-1])
    return [jax.device_get(function(judge.params, *pair, queries)) for pair in pairs]


def test_shared_computation_equals_plain(judge, images, shared) -> None:
    mask = judge.queries.dimension_mask
    plain = value_and_gradients(judge.scorer.score_plain)
    (_, expected), expected_gradients = plain(judge.params, *images, judge.queries)
    (_, answers), gradients = shared[0]
    for ours, theirs in zip(answers, expected):
        np.testing.assert_allclose(ours[mask], np.asarray(theirs)[mask], rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected_gradients)):
        atol = 2e-4 * float(jnp.abs(theirs).max()) + 1e-7
        np.testing.assert_allclose(ours, np.asarray(theirs), atol=atol)


def test_answers_only_renormalises_the_two_answers(judge, images, shared) -> None:
    scorer = dataclasses.replace(judge.scorer, answers_only=True)
    mask = judge.queries.dimension_mask
    log_yes, log_no = jax.jit(scorer.score)(judge.params, *images, judge.queries)
    whole_yes, whole_no = shared[0][0][1]
    both = np.logaddexp(whole_yes, whole_no)
    np.testing.assert_allclose(np.asarray(log_yes)[mask], (whole_yes - both)[mask], rtol=1e-4)
    np.testing.assert_allclose(np.asarray(log_no)[mask], (whole_no - both)[mask], rtol=1e-4)


def test_both_orders_at_once_are_both_orders(judge, images, shared) -> None:
    mask = judge.queries.dimension_mask
    found = jax.jit(judge.scorer.score_both_orders)(judge.params, *images, judge.queries)
    for answer, both in enumerate(found):
        for order in range(2):
            expected = shared[order][0][1][answer][mask]
            np.testing.assert_allclose(np.asarray(both)[:, order][mask], expected, rtol=1e-5)


def test_answers_and_image_gradient_equal_transformers(judge, images, shared) -> None:
    """Every question asked alone, without padding, with transformers' own position ids."""
    scorer, queries = judge.scorer, judge.queries
    (_, (log_yes, log_no)), (_, gradient, _) = shared[0]

    patches_a, pull_back = jax.vjp(PROCESSOR, images[0])
    patches_b = PROCESSOR(images[1])
    grid = torch.tensor([PROCESSOR.grid(SIDE, SIDE)] * 2)
    patches_gradient = np.zeros(patches_a.shape, np.float32)
    for row, column in np.argwhere(queries.dimension_mask):
        prefix = queries.prefix[row][queries.prefix[row] != scorer.layout.pad_id]
        suffix = queries.suffix[row, column][queries.suffix_mask[row, column]]
        ids = torch.tensor(np.concatenate([prefix, suffix]), dtype=torch.long)[None]
        a = torch.tensor(np.asarray(patches_a[row]), requires_grad=True)
        b = torch.tensor(np.asarray(patches_b[row]))
        logits = judge.theirs(
            input_ids=ids,
            pixel_values=torch.cat([a, b]),
            image_grid_thw=grid,
            mm_token_type_ids=(ids == judge.theirs.config.image_token_id).int(),
        ).logits
        log_p = torch.log_softmax(logits[0, -1], -1)
        yes, no = log_p[scorer.layout.yes_id], log_p[scorer.layout.no_id]
        assert log_yes[row, column] == pytest.approx(yes.item(), rel=2e-4)
        assert log_no[row, column] == pytest.approx(no.item(), rel=2e-4)
        (yes - 0.3 * no).backward()
        patches_gradient[row] += a.grad.numpy()
    (expected,) = pull_back(jnp.asarray(patches_gradient))
    atol = 2e-4 * float(jnp.abs(expected).max())
    np.testing.assert_allclose(gradient, np.asarray(expected), atol=atol)


def test_words_are_foretold_as_by_transformers(judge, images) -> None:
    """All tokens of a suffix but the first; padding and other questions tell nothing."""
    queries, pad = judge.queries, judge.scorer.layout.pad_id
    score = jax.jit(judge.scorer.score_both_orders_and_words)
    *_, found = score(judge.params, *images, queries)
    patches = [torch.tensor(np.asarray(PROCESSOR(part))) for part in images]
    for row, order in np.ndindex(found.shape):
        likelihoods = []
        for column in np.flatnonzero(queries.dimension_mask[row]):
            prefix = queries.prefix[row][queries.prefix[row] != pad]
            suffix = queries.suffix[row, column][queries.suffix_mask[row, column]]
            ids = torch.tensor(np.concatenate([prefix, suffix]), dtype=torch.long)[None]
            with torch.no_grad():
                logits = judge.theirs(
                    input_ids=ids,
                    pixel_values=torch.cat([part[row] for part in patches[:: 1 - 2 * order]]),
                    image_grid_thw=torch.tensor([PROCESSOR.grid(SIDE, SIDE)] * 2),
                    mm_token_type_ids=(ids == judge.theirs.config.image_token_id).int(),
                ).logits[0]
            log_p = torch.log_softmax(logits[len(prefix) : -1], -1).numpy()
            likelihoods += list(log_p[np.arange(len(suffix) - 1), suffix[1:]])
        assert found[row, order] == pytest.approx(np.mean(likelihoods), rel=2e-4)


def test_padding_and_neighbours_do_not_change_an_answer(judge, images, shared) -> None:
    """Longer prefixes and suffixes, other ids in the padding, samples in another order."""
    queries, layout = judge.queries, judge.scorer.layout
    room = ((0, 0), (0, 0), (0, 5))
    longer_mask = np.pad(queries.suffix_mask, room)
    longer = QueryBatch(
        np.pad(queries.prefix, ((0, 0), (0, 3)), constant_values=layout.pad_id),
        np.where(longer_mask, np.pad(queries.suffix, room), layout.yes_id).astype(np.int32),
        longer_mask,
    )
    wider = dataclasses.replace(
        judge.scorer,
        layout=dataclasses.replace(
            layout,
            prefix_length=layout.prefix_length + 3,
            suffix_length=layout.suffix_length + 5,
            packed_length=layout.packed_length + 7,
        ),
    )
    reverse = jax.tree.map(lambda part: jnp.asarray(part[::-1]), longer)
    padded, _ = jax.jit(wider.score)(judge.params, images[0][::-1], images[1][::-1], reverse)
    mask = queries.dimension_mask
    expected, _ = shared[0][0][1]
    np.testing.assert_allclose(np.asarray(padded)[::-1][mask], expected[mask], rtol=2e-5)


def test_order_of_the_images_matters(judge, shared) -> None:
    mask = judge.queries.dimension_mask
    (forward, _), (swapped, _) = (outcome[0][1] for outcome in shared)
    assert np.abs(forward - swapped)[mask].min() > 1e-4


def test_every_sample_gets_a_gradient_and_the_reference_costs_no_backward(
    judge, images, shared
) -> None:
    _, (_, gradient, _) = shared[0]
    assert (np.abs(gradient).max(axis=(1, 2, 3)) > 1e-6).all()

    def loss(images_a, images_b):
        return judge.scorer.score(judge.params, images_a, images_b, judge.queries)[0].sum()

    def encode(image):
        grid = PROCESSOR.grid(SIDE, SIDE)
        variables = {"params": judge.params}
        return judge.scorer.model.apply(variables, PROCESSOR(image), grid, method="image_tokens")

    def operations(function, *arguments) -> float:
        return jax.jit(function).lower(*arguments).cost_analysis()["flops"]

    to_both, to_first = (operations(jax.grad(loss, which), *images) for which in ((0, 1), 0))
    assert to_both - to_first > 0.9 * operations(encode, images[0])


def test_mismatch_of_images_and_queries_is_named(judge) -> None:
    large = jnp.zeros((2, 8, 400, 3))
    with pytest.raises(ValueError, match="the queries are made for 9"):
        judge.scorer.score(judge.params, large, large, judge.queries)


def test_real_size_traces_at_1024_pixels() -> None:
    """Qwen2.5-VL-7B in bfloat16: 8.29 billion parameters, gradient to a 1024² image."""
    model = Qwen2_5_VL(
        Qwen2_5_VLConfig(), dtype=jnp.bfloat16, param_dtype=jnp.bfloat16, remat="full"
    )
    params = nn.meta.unbox(jax.eval_shape(partial(init_params, model), jax.random.key(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 8_292_166_656

    tokenizer = qwen_tokenizer(packaged_template().texts())
    processor = ImageProcessor(max_pixels=28 * 28 * 16384)  # as published
    layout = QueryTokenizer(tokenizer, processor.tokens_per_image(1024, 1024)).layout
    assert layout.tokens_per_image == 37 * 37
    image = jax.ShapeDtypeStruct((2, 1024, 1024, 3), jnp.float32)
    queries = QueryBatch(
        jax.ShapeDtypeStruct((2, layout.prefix_length), jnp.int32),
        jax.ShapeDtypeStruct((2, 4, layout.suffix_length), jnp.int32),
        jax.ShapeDtypeStruct((2, 4, layout.suffix_length), jnp.bool_),
    )
    scorer = Scorer(model, processor, layout)

    def loss(image, params, reference, queries):
        return scorer.score(params, image, reference, queries)[0].sum()

    gradient = jax.eval_shape(jax.grad(loss), image, params, image, queries)
    assert gradient.shape == image.shape and gradient.dtype == jnp.float32
