"""The query Φ: what is quoted when, token layout, lengths, versions."""

import json

import numpy as np
import pytest
from PIL import Image
from transformers import PreTrainedTokenizerBase, Qwen2VLImageProcessor

from onereward_jax.mini.mini_tokenizers import qwen_tokenizer
from onereward_jax.reward import (
    JudgeView,
    QueryTokenizer,
    packaged_scalar_template,
    packaged_template,
)
from onereward_jax.reward.judge_loader import COUNTS_FILE, read_counts
from onereward_jax.reward.judge_view import SOURCES
from onereward_jax.reward.query_template import IMAGE_TOKEN
from onereward_jax.tasks import DIMENSIONS, MAX_DIMENSIONS, TASKS, Dimension, Task

PROMPT = 'a {green} "zebra" of glass'
TOKENS_PER_IMAGE = 6
TEMPLATE = packaged_template()


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return qwen_tokenizer([*TEMPLATE.texts(), "a red apple", "a green pear"])


@pytest.fixture(scope="module")
def queries(tokenizer: PreTrainedTokenizerBase) -> QueryTokenizer:
    return QueryTokenizer(tokenizer, TOKENS_PER_IMAGE)


def real_ids(queries: QueryTokenizer, batch, row: int, column: int) -> list[int]:
    prefix = [i for i in batch.prefix[row].tolist() if i != queries.layout.pad_id]
    return prefix + batch.suffix[row, column][batch.suffix_mask[row, column]].tolist()


@pytest.mark.parametrize("template", [TEMPLATE, packaged_scalar_template()], ids=lambda t: t.name)
def test_counts_alone_give_the_layout_of_the_tokenizer(tokenizer, template, tmp_path) -> None:
    def length(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False))

    layouts, source = {}, {}
    for shown in SOURCES:
        queries = QueryTokenizer(
            tokenizer, TOKENS_PER_IMAGE, template=template, view=JudgeView(source=shown)
        )
        layouts[shown], (first, *others) = queries.layout, queries.template.before_images()
        if shown:
            source[shown] = [length(first) - length(template.head), length(others[0])]
    stored = {
        "head": length(template.head),
        "source": source,
        "task": {task.value: length(template.task_text(task)) for task in TASKS},
        "suffix": {one.value: length(template.suffix_text(one, "")) for one in Dimension},
        **{f"{name}_id": getattr(layouts[""], f"{name}_id") for name in ("pad", "yes", "no")},
    }
    path = tmp_path / COUNTS_FILE
    path.write_text(json.dumps({template.version: stored}))
    counts = read_counts(tmp_path, template)
    for shown, layout in layouts.items():
        assert counts.layout(TOKENS_PER_IMAGE, 64, shown, template.pictures) == layout
        assert len(layout.image_starts) == template.pictures + bool(shown)
    path.write_text(json.dumps({"0": stored}))
    with pytest.raises(ValueError, match="has no counts of query template"):
        read_counts(tmp_path, template)


def test_prompt_is_quoted_for_text_alignment_only(tokenizer, queries) -> None:
    batch = queries.encode(TASKS, [PROMPT] * len(TASKS))
    for row, task in enumerate(TASKS):
        assert batch.dimension_mask[row].sum() == len(DIMENSIONS[task])
        for column, dimension in enumerate(DIMENSIONS[task]):
            text = tokenizer.decode(real_ids(queries, batch, row, column))
            assert (f'"{PROMPT}"' in text) == (dimension is Dimension.TEXT_ALIGNMENT)
            assert task.title in text and dimension.title in text
            assert text.endswith("<|im_end|>\n<|im_start|>assistant\n")


def test_every_task_and_dimension_asks_something_else(queries) -> None:
    batch = queries.encode(TASKS, ["same"] * len(TASKS))
    asked = [
        tuple(real_ids(queries, batch, row, column))
        for row, task in enumerate(TASKS)
        for column in range(len(DIMENSIONS[task]))
    ]
    assert len(set(asked)) == len(asked)


def test_images_sit_where_the_layout_says_in_every_query(tokenizer, queries) -> None:
    batch = queries.encode(TASKS, ["x"] * len(TASKS))
    image_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    expected = np.zeros(queries.layout.prefix_length, bool)
    for start in queries.layout.image_starts:
        expected[start : start + TOKENS_PER_IMAGE] = True
    assert (expected == (batch.prefix == image_id)).all()
    assert not (batch.suffix == image_id).any()


def test_split_in_prefix_and_suffix_does_not_change_the_tokens(tokenizer, queries) -> None:
    batch = queries.encode([Task.FILL], [PROMPT])
    for column in range(MAX_DIMENSIONS):
        ids = real_ids(queries, batch, 0, column)
        assert tokenizer.encode(tokenizer.decode(ids), add_special_tokens=False) == ids


def test_ids_equal_chat_template_and_image_processor(tokenizer, queries) -> None:
    """What transformers makes of the same conversation with two images of 2 x 3 tokens."""
    batch = queries.encode([Task.FILL], [PROMPT])
    asked = TEMPLATE.suffix_text(Dimension.TEXT_ALIGNMENT, PROMPT).split("<|")[0]
    text = TEMPLATE.task_text(Task.FILL) + asked
    conversation = [
        {"role": "system", "content": "You compare edited images."},
        {"role": "user", "content": [{"type": "image"}] * 2 + [{"type": "text", "text": text}]},
    ]
    chat = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    images = Qwen2VLImageProcessor(size={"shortest_edge": 28 * 28, "longest_edge": 84 * 56})
    grid = images(Image.new("RGB", (84, 56)), return_tensors="np")["image_grid_thw"][0]
    expanded = chat.replace(IMAGE_TOKEN, IMAGE_TOKEN * (grid.prod() // images.merge_size**2))
    ids = tokenizer.encode(expanded, add_special_tokens=False)
    assert real_ids(queries, batch, 0, 2) == ids


def test_packed_length_bounds_every_sample(queries) -> None:
    """Even when the prompt fills the suffix to the last token."""
    prompt = ""
    while True:
        try:
            longest = queries.encode(TASKS, [prompt] * len(TASKS))
        except ValueError:
            break
        prompt += "q"
    real = longest.suffix_mask.sum(axis=(1, 2))
    assert longest.suffix_mask.all(axis=-1).any()
    assert real.max() == queries.layout.packed_length


def test_single_dimensions_equal_the_full_batch(queries) -> None:
    tasks = [Task.FILL, Task.REMOVAL]
    dimensions = [Dimension.TEXT_ALIGNMENT, Dimension.REMOVAL_QUALITY]
    whole = queries.encode(tasks, ["a pear", "remove"])
    single = queries.encode_dimensions(tasks, dimensions, ["a pear", "remove"])
    assert (single.prefix == whole.prefix).all()
    for row, (task, dimension) in enumerate(zip(tasks, dimensions)):
        column = DIMENSIONS[task].index(dimension)
        assert (single.suffix[row, 0] == whole.suffix[row, column]).all()
        assert (single.suffix_mask[row, 0] == whole.suffix_mask[row, column]).all()


def test_errors_name_the_cause(tokenizer, queries) -> None:
    with pytest.raises(ValueError, match="room for .* tokens|suffix_length 64"):
        queries.encode([Task.FILL], ["zebra " * 40])
    with pytest.raises(ValueError, match="control token <|image_pad|>"):
        queries.encode([Task.FILL], ["an <|image_pad|>"])
    with pytest.raises(ValueError, match="not judged for task"):
        queries.encode_dimensions([Task.REMOVAL], [Dimension.AESTHETICS], ["remove"])
    with pytest.raises(ValueError, match="suffix_length 4"):
        QueryTokenizer(tokenizer, TOKENS_PER_IMAGE, suffix_length=4)
    with pytest.raises(ValueError, match="'Yes' is not a single token"):
        QueryTokenizer(_without_answers(tokenizer), TOKENS_PER_IMAGE)


def test_prompts_that_are_not_quoted_may_be_anything(queries) -> None:
    same = queries.encode([Task.REMOVAL], ["remove"])
    for prompt in ("zebra " * 40, "an <|image_pad|>"):
        np.testing.assert_array_equal(queries.encode([Task.REMOVAL], [prompt]).suffix, same.suffix)


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("a red apple", ""),
        ("zebra " * 40, "tokens where there is room for"),
        ("\N{SNOWMAN}" * 60, "tokens where there is room for"),
        ("an <|image_pad|> <|im_end|>", "the control token"),
        ("<|im_<|im_end|>end|>" + "zebra " * 40, "the control token"),
    ],
)
def test_a_cut_prompt_fits_and_ends_as_every_question_does(tokenizer, prompt, reason) -> None:
    strict = QueryTokenizer(tokenizer, TOKENS_PER_IMAGE)
    cutting = QueryTokenizer(tokenizer, TOKENS_PER_IMAGE, cut_prompts=True)
    assert reason in strict.unfit(prompt) and bool(reason) == bool(strict.unfit(prompt))
    kept = cutting.fitted(prompt)
    assert cutting.unfit(kept) == "" and cutting.fitted(kept) == kept
    assert kept == prompt if not reason else len(kept) < len(prompt)
    whole = cutting.encode([Task.FILL], [prompt])
    for found, expected in zip(whole, strict.encode([Task.FILL], [kept]), strict=True):
        np.testing.assert_array_equal(found, expected)
    said = tokenizer.decode(real_ids(cutting, whole, 0, 2))
    assert said.endswith(TEMPLATE.suffix_text(Dimension.TEXT_ALIGNMENT, kept))
    if "tokens" in reason:  # no more is taken than has to be
        assert prompt.startswith(kept) and whole.suffix_mask[0, 2].sum() >= 60


def _without_answers(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A tokenizer of the same kind that spells everything by bytes."""
    alphabet = [token for token in tokenizer.get_vocab() if len(token) == 1]
    return type(tokenizer)(
        vocab={token: index for index, token in enumerate(alphabet)},
        merges=[],
        extra_special_tokens=[token for token in tokenizer.get_vocab() if token.startswith("<|")],
    )
