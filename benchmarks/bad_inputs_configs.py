"""JSON files of model folders: fields removed, null, negative, zero, huge, of another type, NaN."""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import math
import os
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from bad_inputs_case import Case, same
from bad_inputs_models import COMPONENTS, EDITOR, JUDGE, intact, read_component

from onereward_jax.convert import load_tokenizer
from onereward_jax.inference.edit_defaults import read_edit_defaults
from onereward_jax.policy import read_policy
from onereward_jax.policy.policy_loader import read_schedule
from onereward_jax.reward.judge_loader import read_reward_model, write_judge_template
from onereward_jax.reward.query_template import packaged_template

REMOVED = object()
VALUES: dict[str, Callable[[Any], Any]] = {
    "removed": lambda value: REMOVED,
    "null": lambda value: None,
    "-1": lambda value: -1,
    "0": lambda value: 0,
    "2^40": lambda value: 1 << 40,
    "10^400": lambda value: 10**400,
    "1.5": lambda value: 1.5,
    "1e-300": lambda value: 1e-300,
    "NaN": lambda value: math.nan,
    "Infinity": lambda value: math.inf,
    "a word": lambda value: "word",
    "as text": str,
    "empty text": lambda value: "",
    "true": lambda value: True,
    "false": lambda value: False,
    "an empty list": lambda value: [],
    "in a list": lambda value: [value],
    "an empty object": lambda value: {},
    "one more": lambda value: (
        value + 1 if isinstance(value, int | float) else [*value, *value[-1:]]
        if isinstance(value, list) else value
    ),
    "one less": lambda value: (
        value - 1 if isinstance(value, int | float) else value[:-1]
        if isinstance(value, list | str) else value
    ),
    "as a float": lambda value: float(value) if isinstance(value, int) else value,
}  # fmt: skip
"""What is put into a field."""

POSITIVE = lambda value: _number(value) and value > 0
FINITE = lambda value: _number(value)
COUNT = lambda value: type(value) is int and 0 < value < 1 << 53
FREE: dict[str, Callable[[Any], bool]] = {
    "vae.scaling_factor": POSITIVE,
    "vae.shift_factor": FINITE,
    "clip.layer_norm_eps": POSITIVE,
    "clip.eos_token_id": lambda value: type(value) is int and 0 <= value < 780,
    "t5.layer_norm_epsilon": POSITIVE,
    "t5.relative_attention_max_distance": lambda value: COUNT(value) and value > 16,
    "judge.text_config.rms_norm_eps": POSITIVE,
    "judge.text_config.rope_parameters.rope_theta": POSITIVE,
    "judge.vision_config.window_size": lambda value: COUNT(value) and value >= 28,
    "judge.vision_config.fullatt_block_indexes": lambda value: (
        isinstance(value, list) and all(type(one) is int and 0 <= one < 4 for one in value)
    ),
    "schedule.num_train_timesteps": COUNT,
    "schedule.shift": POSITIVE,
    "schedule.use_dynamic_shifting": lambda value: isinstance(value, bool),
    "preprocessor.image_mean": lambda value: _three(value) and all(map(FINITE, value)),
    "preprocessor.image_std": lambda value: _three(value) and all(map(POSITIVE, value)),
    "preprocessor.min_pixels": lambda value: COUNT(value) and value <= 12544,
    "preprocessor.max_pixels": lambda value: COUNT(value) and value >= 12544,
    "editing.num_inference_steps": COUNT,
    "editing.true_cfg_scale": FINITE,
    "editing.paste_back": lambda value: isinstance(value, bool),
    "tokenizer.model_max_length": lambda value: type(value) is int and value > 0,
    "tokenizer_2.model_max_length": lambda value: type(value) is int and value > 0,
    "judge.text_config.initializer_range": FINITE,
    "judge.vision_config.initializer_range": FINITE,
    "judge.vision_config.num_heads": lambda value: COUNT(value) and 96 % (4 * value) == 0,
}
"""Fields whose other values are as good, and which ones."""

DEFAULTS = (
    "clip.num_attention_heads",
    "editing",
    "judge.text_config.initializer_range",
    "judge.text_config.rope_parameters.rope_theta",
    "judge.vision_config.fullatt_block_indexes",
    "judge.vision_config.initializer_range",
    "judge.vision_config.window_size",
    "preprocessor.min_pixels",
    "tokenizer.model_max_length",
    "tokenizer_2.model_max_length",
    "vae.shift_factor",
)
"""Fields that may be absent: the original libraries, or this one, state a default."""

GROUPS = {
    "a field removed": ("removed",),
    "a field null": ("null",),
    "another number": (
        "-1", "0", "2^40", "10^400", "1.5", "1e-300", "one more", "one less", "as a float",
    ),
    "not finite": ("NaN", "Infinity"),
}  # fmt: skip
"""Rows of the table; other values are of another type."""


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _three(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3


@dataclasses.dataclass(frozen=True)
class File:
    """A JSON file.

    Attributes:
      name: of the file's cases.
      folder: the intact folder that has it.
      path: path of the file in it.
      read: the folder -> what is read.
      whole: whether the folder's other files are needed, as links.
    """

    name: str
    folder: Path
    path: str
    read: Callable[[Path], Any]

    def content(self) -> Any:
        return json.loads((self.folder / self.path).read_text())


def prepare(root: Path) -> None:
    """Writes a judge folder with a query template of its own."""
    shutil.copytree(JUDGE, root / "judge")
    write_judge_template(root / "judge", packaged_template())


def cases(root: Path, rng: random.Random) -> Iterator[Case]:
    """Mutations of every field of every file, and of their bytes."""
    for one in _files(root):
        content = one.content()
        for path, value in _leaves(content):
            for what, new in VALUES.items():
                yield from _of_field(one, content, path, value, what, new)
        yield from _of_bytes(one, rng)


def _files(root: Path) -> Iterator[File]:
    for name, one in COMPONENTS.items():
        yield File(name, one.folder, "config.json", functools.partial(read_component, name))
    scheduler = lambda folder: _schedule(folder)
    yield File("schedule", EDITOR / "scheduler", "scheduler_config.json", scheduler)
    yield File("model_index", EDITOR, "model_index.json", _static_editor)
    yield File("editing", EDITOR, "editing.json", read_edit_defaults)
    yield File("preprocessor", JUDGE, "preprocessor_config.json", _static_judge)
    yield File("query", root / "judge", "onereward_query.json", _static_judge)
    for name in ("tokenizer", "tokenizer_2"):
        yield File(name, EDITOR / name, "tokenizer_config.json", _token_ids)
    yield File("judge tokenizer", JUDGE, "tokenizer_config.json", _static_judge)


def _schedule(folder: Path) -> Any:
    schedule = read_schedule(folder)
    return {"schedule": schedule, "sigmas": schedule.sigmas(8, 1024)}


def _static_editor(folder: Path) -> Any:
    editor = read_policy(folder)
    return [editor.transformer.config, editor.vae.config, editor.schedule]


def _static_judge(folder: Path) -> Any:
    judge = read_reward_model(folder, (64, 64))
    scorer = judge.scorer
    queries = judge.queries.encode_dimensions(["fill"], ["text_alignment"], ["a red apple"])
    return {"processor": scorer.processor, "layout": scorer.layout, "queries": tuple(queries)}


def _token_ids(folder: Path) -> Any:
    tokenizer = load_tokenizer(folder)
    found = tokenizer(["a red apple", ""], padding="max_length", truncation=True, max_length=12)
    return {"ids": found["input_ids"], "longest": tokenizer.model_max_length}


def _case(one: File, kind: str, what: str, data: Callable[[], bytes | None], truth: Any) -> Case:
    def read(folder: Path) -> Any:
        for source in one.folder.rglob("*"):
            target = folder / source.relative_to(one.folder)
            if source.is_dir():
                target.mkdir(exist_ok=True)
            else:
                os.symlink(source, target)
        path = folder / one.path
        path.unlink()
        content = data()
        if content is not None:
            path.write_bytes(content)
        return jax.device_get(one.read(folder))

    return Case(f"configs: {kind}", f"{one.name} {what}", read, truth)


@functools.cache
def _intact(one: File) -> Any:
    if one.name in COMPONENTS:
        return intact(one.name)
    return jax.device_get(one.read(one.folder))


def _leaves(value: Any, path: tuple = ()) -> Iterator[tuple[tuple, Any]]:
    """Every field: objects and lists themselves, too."""
    if path:
        yield path, value
    if isinstance(value, Mapping):
        for key in value:
            yield from _leaves(value[key], (*path, key))
    elif isinstance(value, list) and value and not isinstance(value[0], Mapping):
        yield from _leaves(value[0], (*path, 0))


def _of_field(
    one: File, content: Any, path: tuple, value: Any, what: str, new: Callable[[Any], Any]
) -> Iterator[Case]:
    changed = copy.deepcopy(content)
    place = functools.reduce(lambda part, key: part[key], path[:-1], changed)
    put = new(copy.deepcopy(value))
    if put is REMOVED:
        del place[path[-1]]
    elif type(put) is type(value) and put == value:
        return
    else:
        place[path[-1]] = put
    dotted = ".".join(map(str, path))

    def right(found: Any) -> bool:
        return same(found, _intact(one)) or _is_free(one, changed, path)

    group = next((group for group in GROUPS if what in GROUPS[group]), "a field of another type")
    yield _case(
        one, group, f"{dotted}, {what}", lambda: json.dumps(changed).encode(), lambda: right
    )


def _is_free(one: File, changed: Any, path: tuple) -> bool:
    """Whether the value is as good as the intact one."""
    names = [name for name in path if isinstance(name, str)]
    allowed = FREE.get(".".join([one.name, *names]))
    value = functools.reduce(lambda part, key: part.get(key, REMOVED), names, changed)
    if value is REMOVED or value is None:
        return ".".join([one.name, *names]) in DEFAULTS or one.name in DEFAULTS
    return allowed is not None and allowed(value)


def _of_bytes(one: File, rng: random.Random) -> Iterator[Case]:
    """Other bytes, other JSON, no file."""
    raw = (one.folder / one.path).read_bytes()
    truth = lambda: lambda found: same(found, _intact(one))
    kind = "other bytes"
    for what, data in {
        "empty": b"",
        "null": b"null",
        "a list": b"[]",
        "a number": b"3",
        "text": b'"x"',
        "{}": b"{}",
        "nested": b'{"a":' * 100_000,
        "utf-16": raw.decode().encode("utf-16"),
        "byte order mark": b"\xef\xbb\xbf" + raw,
        "not UTF-8": raw.replace(b'"', b'"\xff', 1),
        "a comma more": raw.rstrip().removesuffix(b"}") + b",}",
        "two objects": raw + raw,
        "single quotes": raw.replace(b'"', b"'"),
        "zeros": b"\0" * len(raw),
    }.items():
        yield _case(one, kind, what, lambda data=data: data, truth)
    if one.path not in ("editing.json", "onereward_query.json"):  # may be absent
        yield _case(one, kind, "no file", lambda: None, truth)
    for _ in range(5):
        place = rng.randrange(len(raw.rstrip()))
        yield _case(one, kind, f"cut at {place}", lambda place=place: raw[:place], truth)
