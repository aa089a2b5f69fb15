"""Messages stay short, however long the lists and names are that go wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from onereward_jax.common.dataclass_fields import check_fields
from onereward_jax.common.listing import first_of, listed
from onereward_jax.convert import CLIP, load_params
from onereward_jax.convert.layouts import statement
from onereward_jax.models.clip.config import ClipTextConfig


@pytest.mark.parametrize(("given", "lines"), [(0, 0), (20, 20), (21, 21), (5000, 21)])
def test_twenty_entries_and_the_number_of_the_others(given: int, lines: int) -> None:
    entries = [str(number) for number in range(given)]
    text = listed(entries)
    assert text.count("\n  ") == lines
    if given > 20:
        assert first_of(entries)[-1] == f"and {given - 20} more" and text.endswith(" more")


def test_names_of_any_length_in_a_file_make_a_short_message(tmp_path) -> None:
    tensors = {f"{'x' * 5000}{number}": np.zeros(1, np.float32) for number in range(100)}
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(statement(CLIP)))
    with pytest.raises(ValueError, match="and 80 more$") as caught:
        load_params(tmp_path, {}, CLIP)
    assert len(str(caught.value)) < 10_000


def test_a_long_value_of_a_config_is_cut() -> None:
    with pytest.raises(
        ValueError, match="hidden_size is .*, an integer from 1 to 2147483647"
    ) as caught:
        check_fields("config.json", ClipTextConfig, {"hidden_size": [0] * 10_000})
    assert len(str(caught.value)) < 500
