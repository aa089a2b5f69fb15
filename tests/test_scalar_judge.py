"""A judge that sees one picture at a time: rewards whose differences are Bradley-Terry's logits."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_models
from ml_collections import FrozenConfigDict

from onereward_jax.common.config_files import load_config
from onereward_jax.reward import (
    QueryBatch,
    QueryTemplate,
    QueryTokenizer,
    packaged_scalar_template,
    packaged_template,
)
from onereward_jax.reward.query_template import IMAGE_TOKEN, PACKAGED
from onereward_jax.stages.reward_settings import query_template
from onereward_jax.tasks import DIMENSIONS, Task
from onereward_jax.training.preference_loss import PairAnswers, preference_loss

SIDE = tiny_models.SIDE


@pytest.fixture(scope="module")
def judge():
    """(scorer, weights, queries, pictures a, b and c of two samples)."""
    tokens = tiny_models.PROCESSOR.tokens_per_image(SIDE, SIDE)
    asked = QueryTokenizer(
        tiny_models.tokenizer(), tokens, suffix_length=40, template=packaged_scalar_template()
    )
    scorer = dataclasses.replace(tiny_models.models().scorer, layout=asked.layout)
    queries = asked.encode([Task.FILL, Task.REMOVAL], ["a red apple", "remove"])
    pictures = np.random.default_rng(0).uniform(-0.9, 0.9, (3, 2, SIDE, SIDE, 3))
    queries = QueryBatch(*map(jnp.asarray, queries[:3]))
    return scorer, tiny_models.weights()[3], queries, jnp.asarray(pictures, jnp.float32)


@pytest.fixture(scope="module")
def answers(judge):
    """((a, b), (b, c), (a, c)) -> log P("Yes") and log P("No") of the asked dimensions."""
    scorer, params, queries, pictures = judge
    score = jax.jit(scorer.score)
    asked, found = queries.dimension_mask, {}
    for first, second in itertools.combinations(range(3), 2):
        answered = score(params, pictures[first], pictures[second], queries)
        found[first, second] = [np.asarray(one)[asked] for one in answered]
    return found


def test_a_picture_has_one_reward_whatever_it_is_compared_with(judge, answers):
    """The logits of a against b and of b against c add up to those of a against c."""
    logits = {pair: yes - no for pair, (yes, no) in answers.items()}
    assert np.abs(logits[0, 2]).min() > 1e-3
    np.testing.assert_allclose(logits[0, 1] + logits[1, 2], logits[0, 2], rtol=1e-3, atol=1e-4)
    for yes, no in answers.values():
        np.testing.assert_allclose(np.exp(yes) + np.exp(no), 1.0, rtol=1e-5)


def test_shared_and_both_orders_equal_every_question_asked_alone(judge, answers):
    scorer, params, queries, pictures = judge
    asked = queries.dimension_mask
    plain = jax.jit(scorer.score_plain)(params, *pictures[:2], queries)
    both = jax.jit(scorer.score_both_orders)(params, *pictures[:2], queries)
    trained = jax.jit(scorer.score_both_orders_and_words)(params, *pictures[:2], queries)
    for known, found, orders in zip(answers[0, 1], plain, both, strict=True):
        np.testing.assert_allclose(np.asarray(found)[asked], known, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(np.asarray(orders[:, 0])[asked], known, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(both[0][:, 0], both[1][:, 1], rtol=1e-5)
    for found, orders in zip(trained, both, strict=False):
        found, orders = (np.swapaxes(one, 1, 2)[asked] for one in (found, orders))
        np.testing.assert_allclose(found, orders, rtol=1e-3, atol=1e-4)


def test_eq_3_of_its_answers_is_the_loss_of_bradley_and_terry():
    """ImageReward's Eq. 1: -log σ(r(winner) - r(loser))."""
    difference = np.array([-2.0, 0.5, 3.0])
    better, worse = jax.nn.log_sigmoid(difference), jax.nn.log_sigmoid(-difference)
    both = PairAnswers(jnp.stack([better, worse], axis=1), jnp.stack([worse, better], axis=1))
    expected = np.log1p(np.exp(-difference))
    np.testing.assert_allclose(preference_loss(both, jnp.ones(3)), expected, rtol=1e-5)


def test_the_template_says_how_many_pictures_there_are():
    alone, pairwise = packaged_scalar_template(), packaged_template()
    assert QueryTemplate.from_dict(alone.to_dict()) == alone
    assert "pictures" not in pairwise.to_dict()
    assert alone.version != dataclasses.replace(alone, pictures=2).version
    for template, pictures in ((alone, 1), (pairwise, 2)):
        texts = [text for asked in template.queries().values() for text in asked.values()]
        assert {text.count(IMAGE_TOKEN) for text in texts} == {pictures}
        assert len(texts) == sum(map(len, DIMENSIONS.values()))
    with pytest.raises(ValueError, match="pictures is 3: 1 or 2 expected"):
        QueryTemplate.from_dict(alone.to_dict() | {"pictures": 3})


def test_a_wording_for_another_number_of_pictures_is_refused():
    config = load_config("configs/mini.py")
    assert query_template(FrozenConfigDict(config)) is None
    config.reward.kind = "scalar"
    assert query_template(FrozenConfigDict(config)) == packaged_scalar_template()
    config.reward.query_template = str(PACKAGED)
    with pytest.raises(ValueError, match="query_template .* is about 2 pictures, but .*'scalar'"):
        query_template(FrozenConfigDict(config))
