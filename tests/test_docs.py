"""What README, scripts and packaging say about each other and about the code is true."""

import ast
import os
import pathlib
import re
import subprocess
import sys
import textwrap

import pytest
from ml_collections import FrozenConfigDict
from PIL import Image
from processes import with_devices

import onereward_jax
from onereward_jax.common.config_files import load_config
from onereward_jax.mini.world.photos import PHOTOS
from onereward_jax.stages import STAGES

ROOT = pathlib.Path(onereward_jax.__file__).parents[1]
PACKAGE = ROOT / "onereward_jax"
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("[!_]*.md"))]
SCRIPTS = sorted(path for path in (ROOT / "launch").glob("*.sh") if path.name != "environment.sh")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_path_a_page_names_exists(page):
    text = page.read_text()
    folders = "configs|launch|docs|tests|benchmarks"
    paths = set(re.findall(rf"(?<![\w/])((?:{folders})/[\w/.-]*\w)", text))
    paths = {ROOT / path for path in paths if not path.startswith("docs/_build/")}
    paths |= {page.parent / path for path in re.findall(r"\]\(([\w/.-]+)(?:#[\w-]+)?\)", text)}
    assert not [path for path in paths if not path.exists()]


def test_every_file_of_the_quiz_exists():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    rows = re.findall(r"^\| .+\? \| (.+) \|$", text, re.MULTILINE)
    paths = [path for row in rows for path in re.findall(r"`([\w/.]+)`", row)]
    assert len(rows) >= 20
    known = [ROOT / path if path.startswith("configs/") else PACKAGE / path for path in paths]
    assert not [path for path in known if not path.exists()]


def test_the_readme_leads_to_every_page():
    linked = set(re.findall(r"\]\(docs/([\w/.-]+)(?:#[\w-]+)?\)", README))
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {
        "index.md",
        "changelog.md",
        "contributing.md",
    }
    assert "launch/quickstart.sh" in README and pages <= linked


def test_the_snippets_of_the_readme_run_as_pasted(tmp_path):
    blocks = re.findall(r"(?:^    .*\n|^\n(?=    ))+", README, re.MULTILINE)
    shell, python = (
        next(textwrap.dedent(block) for block in blocks if marked in block)
        for marked in ("onereward_jax.edit", "import Editor")
    )
    python += "assert [picture.size for picture in pictures] == [(64, 64)]\n"
    environment = with_devices(1) | {  # as many as a reader has
        "PATH": f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    subprocess.run(
        ["bash", "-e"],
        input=f"{shell}\npython - <<'SNIPPET'\n{python}SNIPPET\n",
        cwd=tmp_path,
        env=environment,
        text=True,
        check=True,
    )
    sizes = [Image.open(tmp_path / f"{name}.png").size for name in ("sign", "word", "filled")]
    assert sizes == [(64, 64)] * 3


def test_the_pages_list_the_stages_as_the_table_has_them():
    start, config = (ROOT / "docs/start.md").read_text(), load_config(f"{ROOT}/configs/mini.py")
    rows = re.findall(r"^\| `(\w+)` \| (?:.+?) \| (.+) \|$", start, re.MULTILINE)
    assert [name for name, _ in rows] == [stage.name for stage in STAGES]
    for (_, reads), stage in zip(rows, STAGES, strict=True):
        known = {*stage.reads, *stage.reads_also(FrozenConfigDict(config))}
        assert set(re.findall(r"`(\w+)`", reads)) == known, stage.name


def test_the_pages_list_the_folders_of_the_package():
    layout = (ROOT / "docs/api/index.md").read_text()
    listed = re.findall(r"^      (\w+)(?:/|\.py) ", layout, re.MULTILINE)
    package = ROOT / "onereward_jax"
    folders = {path.parent.name for path in package.glob("*/__init__.py")}
    assert folders <= set(listed)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_explain_themselves_without_doing_anything(script, tmp_path):
    outcome = subprocess.run(
        ["bash", str(script), "--help"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "VENV": str(tmp_path / "venv")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert outcome.stdout.startswith(f"launch/{script.name} ")
    assert not list(tmp_path.iterdir())


def test_the_changelog_begins_with_this_version():
    versions = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == onereward_jax.__version__


def test_the_notice_names_every_photograph_and_its_licence():
    notice = " ".join((ROOT / "NOTICE").read_text().split())
    for photo in PHOTOS:
        licence = photo.credit.split(", ")[-1]
        assert re.search(rf"\b{photo.name}\b.{{1,99}}?{re.escape(licence)}", notice), photo


MESSAGES = (ROOT / "docs/formats.md").read_text().partition("## Messages")[2]


def _texts_of_the_source() -> list[str]:
    """All string literals of the package, with a gap where a value is put in."""
    texts = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [getattr(part, "value", None) for part in node.values]
                texts.append("".join(one if isinstance(one, str) else "\0" for one in parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return texts


def test_the_messages_of_the_page_of_formats_are_those_of_the_source():
    quoted = [
        re.findall("`(.+?)`", row)[0] for row in re.findall(r"^\| (.*`.*?) \|", MESSAGES, re.M)
    ]
    assert len(quoted) > 40
    texts = _texts_of_the_source()
    unknown = [
        f"{message}: {part!r}"
        for message in quoted
        for part in re.split(r"\s*…\s*", message)
        if len(part) > 7 and not any(part in text for text in texts)
    ]
    assert not unknown, "\n".join(unknown)
