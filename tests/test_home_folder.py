"""Paths that begin with "~", wherever users write them."""

from pathlib import Path

from onereward_jax.chain.command_flags import with_home
from onereward_jax.common.user_path import user_path
from onereward_jax.data.row_files import row_files
from onereward_jax.preferences import import_parser


def test_the_tilde_is_the_home_folder_only_where_there_is_one(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/a.png") == tmp_path / "a.png"
    for name in ("~nobody-of-this-name/a.png", "~$draft.png", "a~b.png", "b/~/c.png"):
        assert user_path(name) == Path(name)
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "metadata.csv").write_text("image,mask\na,b\n")
    assert row_files("~/rows").folder == tmp_path / "rows"
    assert row_files("~/rows/*.csv").files == (tmp_path / "rows" / "metadata.csv",)
    options = import_parser().parse_args(["--from=~/a.csv", "--to=~/b", "--pictures=~/c"])
    assert [options.source, options.to, options.pictures] == [
        tmp_path / one for one in ("a.csv", "b", "c")
    ]
    assert with_home("--workdir=~/run") == f"--workdir={tmp_path}/run"
    assert with_home("--config=~/own.py:smoke") == f"--config={tmp_path}/own.py:smoke"
    assert with_home("--config.reward.query_template=~/t.json").endswith("=~/t.json")
