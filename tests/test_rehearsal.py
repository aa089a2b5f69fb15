"""A rehearsal deletes nothing but former rehearsals."""

import subprocess
import sys

import pytest

from onereward_jax.rehearsal import empty_workdir


def test_only_a_rehearsals_own_work_folder_is_emptied(tmp_path):
    own, real = tmp_path / "rehearsal", tmp_path / "flux"
    answers = real / "questions" / "questions.jsonl"
    for _ in range(2):
        empty_workdir(own)
        assert not (own / "run").exists()
        (own / "run").mkdir()
    answers.parent.mkdir(parents=True)
    answers.write_text("{}")
    with pytest.raises(ValueError, match="flux is not of a rehearsal"):
        empty_workdir(real)
    ended = subprocess.run(
        [sys.executable, "-m", "onereward_jax.rehearsal", f"--workdir={real}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert answers.read_text() == "{}"
