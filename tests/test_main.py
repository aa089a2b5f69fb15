"""The chain skips, resumes, refuses and loses nothing; the command line says what is wrong."""

import dataclasses
import json
import pathlib
import re
import runpy
import socket
import subprocess
import sys

import jax
import pytest
from ml_collections import ConfigDict, FrozenConfigDict

import onereward_jax
from onereward_jax.common.config import check_overrides, check_tuples, flatten_config
from onereward_jax.parallel import make_mesh
from onereward_jax.stages import STAGES, Stage, StageContext, run_chain
from onereward_jax.stages.record import read_record
from onereward_jax.stages.settings import model_kinds

ROOT = pathlib.Path(onereward_jax.__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").glob("*.py"))


def get_config(name: str) -> ConfigDict:
    return runpy.run_path(str(ROOT / "configs" / f"{name}.py"))["get_config"]()


# Three real stages: `count` writes numbers and can be interrupted, `double` reads it and resumes,
# `total` reads that.


def count(context: StageContext) -> dict[str, int]:
    numbers = context.folder / "numbers.txt"
    assert not numbers.exists(), "a stage that does not resume must find an empty folder"
    numbers.write_text("1")
    if context.config.count.fail:
        raise ValueError("interrupted")
    numbers.write_text("\n".join(map(str, range(context.config.count.size))))
    return {"numbers": context.config.count.size}


def double(context: StageContext) -> None:
    numbers = (context.output("count") / "numbers.txt").read_text().split()
    for number in numbers:
        file = context.folder / number
        if not file.exists():
            file.write_text(str(2 * int(number)))
        if context.config.double.fail_after == int(number):
            raise ValueError("interrupted")


def total(context: StageContext) -> dict[str, int]:
    files = [path for path in context.output("double").iterdir() if path.name.isdigit()]
    return {"total": sum(int(path.read_text()) for path in files)}


CHAIN = (
    Stage("count", "count", count, sections=("count",)),
    Stage("double", "double", double, sections=("double",), reads=("count",), resumes=True),
    Stage("total", "add up", total, reads=("double",)),
)


@pytest.fixture
def config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "stages": ("count", "double", "total"),
            "count": {"size": 4, "fail": False, "choices": (1, 2)},
            "double": {"fail_after": -1},
        }
    )


def run(
    config: ConfigDict,
    workdir: pathlib.Path,
    only: str | None = None,
    chain: tuple[Stage, ...] = CHAIN,
) -> dict[str, bool]:
    mesh = make_mesh(data=jax.device_count(), fsdp=1)
    outcomes = run_chain(config, workdir, mesh, chain, only)
    return {outcome.stage: outcome.ran for outcome in outcomes}


def test_complete_stages_are_skipped_until_something_they_depend_on_changes(config, tmp_path):
    everything = {"count": True, "double": True, "total": True}
    assert run(config, tmp_path) == everything
    assert read_record(tmp_path / "total").results == {"total": 12}
    assert run(config, tmp_path) == dict.fromkeys(everything, False)

    config.double.fail_after = -2
    assert run(config, tmp_path) == {"count": False, "double": True, "total": True}
    config.count.size = 3
    assert run(config, tmp_path) == everything
    assert read_record(tmp_path / "total").results == {"total": 6}
    config.seed = 1
    assert run(config, tmp_path) == everything


def test_how_layers_save_memory_is_no_reason_to_run_again(config, tmp_path):
    chain = (dataclasses.replace(CHAIN[0], sections=("count", "models")), *CHAIN[1:])
    config.models = {"remat": "none", "dtype": "float32"}
    run(config, tmp_path, chain=chain)
    config.models.remat = "full"
    nothing = dict.fromkeys(("count", "double", "total"), False)
    assert run(config, tmp_path, chain=chain) == nothing
    assert run(config, tmp_path, only="double", chain=chain) == {"double": False}
    config.models.dtype = "bfloat16"
    assert run(config, tmp_path, chain=chain)["count"]


def test_another_version_of_what_a_stage_uses_makes_it_run_again(config, tmp_path):
    def with_template(version: str) -> tuple[Stage, ...]:
        versioned = dataclasses.replace(CHAIN[1], versions={"template": version})
        return CHAIN[0], versioned, CHAIN[2]

    run(config, tmp_path, chain=with_template("a"))
    ran = run(config, tmp_path, chain=with_template("b"))
    assert ran == {"count": False, "double": True, "total": True}


def test_a_stage_made_anew_makes_its_readers_run_even_with_the_same_settings(config, tmp_path):
    run(config, tmp_path)
    (tmp_path / "double" / "stage.json").unlink()
    assert run(config, tmp_path) == {"count": False, "double": True, "total": True}


def test_output_of_other_settings_is_moved_aside_not_deleted(config, tmp_path):
    run(config, tmp_path)
    for size in (2, 3):
        config.count.size = size
        run(config, tmp_path)
    kept = [tmp_path / f"count.old-{number}" / "numbers.txt" for number in (1, 2)]
    assert [len(path.read_text().split()) for path in kept] == [4, 2]
    assert not (tmp_path / "double" / "3").exists()


def test_interrupted_stages_resume_or_start_again(config, tmp_path):
    config.count.fail = True
    with pytest.raises(ValueError, match="interrupted"):
        run(config, tmp_path)
    with pytest.raises(ValueError, match="interrupted"):
        run(config, tmp_path)

    config.count.fail = False
    config.double.fail_after = 1
    with pytest.raises(ValueError, match="interrupted"):
        run(config, tmp_path)
    assert read_record(tmp_path / "double").status == "started"
    written = (tmp_path / "double" / "0").stat().st_mtime_ns
    # The same inputs again, and nothing is left to fail on: the first files are not made again.
    (tmp_path / "count" / "numbers.txt").write_text("0\n2\n3")
    assert run(config, tmp_path) == {"count": False, "double": True, "total": True}
    assert (tmp_path / "double" / "0").stat().st_mtime_ns == written


def test_one_stage_alone_wants_everything_it_reads_up_to_date(config, tmp_path):
    with pytest.raises(ValueError, match="total reads double, which is not done: run --stage=do"):
        run(config, tmp_path, only="total")
    run(config, tmp_path)
    config.count.size = 5
    with pytest.raises(ValueError, match=r"reads count, .*config\.count\.size: 4 -> 5"):
        run(config, tmp_path, only="total")
    assert run(config, tmp_path, only="count") == {"count": True}
    with pytest.raises(ValueError, match=r"reads double, which was made .*\(stage\.count: "):
        run(config, tmp_path, only="total")
    assert run(config, tmp_path, only="double") == {"double": True}
    assert run(config, tmp_path, only="total") == {"total": True}


def test_stages_left_out_of_the_config_are_not_waited_for(config, tmp_path):
    config.stages = ("count", "total")
    (tmp_path / "double").mkdir()
    assert run(config, tmp_path) == {"count": True, "total": True}


@pytest.mark.parametrize(
    "content", [b"{", b"[1]", b'"\xe9"', b"[]", b'{"status": "complete", "inputs": 3}']
)
def test_a_damaged_record_names_the_file(config, tmp_path, content):
    run(config, tmp_path)
    (tmp_path / "count" / "stage.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"count/stage\.json is damaged"):
        run(config, tmp_path)


def test_unknown_stages_and_missing_sections_are_named(config, tmp_path):
    config.stages = ("count", "tripple")
    with pytest.raises(ValueError, match="no stage 'tripple'; there are count, double, total"):
        run(config, tmp_path)
    config.stages = ("count",)
    del config.count
    with pytest.raises(ValueError, match=r"config\.count is missing: stage count needs it"):
        run(config, tmp_path)


def test_base_models_come_from_pretraining_a_path_or_the_package(config, tmp_path):
    def find(model: str, stages: tuple[str, ...] = ("rl",)) -> pathlib.Path:
        config.update(stages=stages, models={"judge": model})
        mesh = make_mesh(data=jax.device_count(), fsdp=1)
        return StageContext("rl", FrozenConfigDict(config), tmp_path, mesh).base_model("judge")

    assert find(str(tmp_path)) == tmp_path
    assert find("models") == ROOT / "onereward_jax" / "models"
    assert find("models", stages=("pretrain", "rl")) == tmp_path / "pretrain" / "judge"
    with pytest.raises(FileNotFoundError, match=r"config\.models\.judge: .*nowhere"):
        find(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.rl.stesp=5", "config.rl.stesp .* did you mean config.rl.steps?"),
        ("--config.ckpt=5", "config.ckpt is not a field of the config$"),
        ("--noconfig.rl.stesp", "did you mean config.rl.steps?"),
        ("--config.rl=5", "config.rl is a section"),
    ],
)
def test_typos_in_overrides_are_named(argument, message):
    with pytest.raises(ValueError, match=message):
        check_overrides(["main", "--config=x.py", argument], get_config("mini"))


def test_good_overrides_pass():
    good = ["--config.rl.steps=5", "--config.seed=1", "-config.rl.steps", "--stage=rl"]
    check_overrides(["main", "--config=x.py", *good], get_config("mini"))


def test_tuples_keep_the_type_of_their_elements():
    config, defaults = get_config("mini"), get_config("mini")
    config.candidates.strength = (1, 0.5)
    check_tuples(config, defaults)
    config.candidates.num_steps = (4, "x")
    with pytest.raises(ValueError, match=r"config\.candidates\.num_steps: 'x' is not of type int"):
        check_tuples(config, defaults)


def test_dtypes_are_those_that_models_have():
    config = get_config("mini")
    config.models.dtype = "bflot16"
    with pytest.raises(ValueError, match="config.models.dtype is 'bflot16': choose one of float32"):
        model_kinds(FrozenConfigDict(config))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configs_serve_the_stages_they_name(path):
    config = get_config(path.stem)
    table = {stage.name: stage for stage in STAGES}
    assert list(config.stages) == [name for name in table if name in config.stages]
    needed = {section for name in config.stages for section in table[name].sections}
    run_wide = {"seed", "stages", "mesh", "watch"}
    assert set(config) == needed | run_wide
    json.dumps(flatten_config(config))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_field_is_explained_on_its_line(path):
    explained, _, _ = path.read_text().partition("def smoke")
    fields = re.findall(r"^ +\w+\.\w+ = (.*)$", explained, re.MULTILINE)
    # A value that ends in a bracket is a section; its own fields are looked at.
    unexplained = [value for value in fields if "  # " not in value and not value.endswith(")")]
    assert fields and not unexplained


def test_the_large_config_has_the_fields_of_the_small_one():
    mini, large = (flatten_config(get_config(name)) for name in ("mini", "flux_fill_dev"))
    assert set(mini) == set(large)
    assert {name: type(value) for name, value in mini.items()} == {
        name: type(value) for name, value in large.items()
    }


def stage_source(name: str) -> str:
    """The text of a stage: a module, or all modules of a folder."""
    folder = ROOT / "onereward_jax" / "stages"
    return "\n".join(
        path.read_text() for path in (*folder.glob(f"{name}.py"), *folder.glob(f"{name}/*.py"))
    )


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_stages_declare_what_they_read(stage):
    source, table = stage_source(stage.name), {stage.name: stage for stage in STAGES}
    assert source
    sections, earlier = set(stage.sections), list(stage.reads)
    while earlier:  # a change of their sections reaches this stage through their output
        sections |= set(table[earlier[-1]].sections)
        earlier.extend(table[earlier.pop()].reads)
    known = {section for one in STAGES for section in one.sections}
    read = set(re.findall(r"\bconfig\.(\w+)", source)) & known
    assert read <= sections
    assert set(re.findall(r"\.output\(\"(\w+)\"\)", source)) <= {stage.name, *stage.reads}


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_every_field_of_a_section_is_read_by_a_stage(stage):
    text = "\n".join(map(stage_source, [*(one.name for one in STAGES), "settings"]))
    config = get_config("make_mini" if stage.name == "pretrain" else "mini")
    for section in stage.sections:
        unread = [f for f in config[section] if not re.search(rf"[.\"]{f}\b", text)]
        assert not unread, f"config.{section}: no stage reads {unread}"


TWO_PROCESSES = """
import sys
import jax
from ml_collections import ConfigDict
from onereward_jax.parallel import make_mesh
from onereward_jax.parallel.hosts import find_meeting, join
from onereward_jax.stages import Stage, run_chain

def write(context):
    (context.folder / f"part-{jax.process_index()}").write_text("")

def look(context):
    return {"parts": len(list(context.output("write").glob("part-*")))}

join(find_meeting(sys.argv[1], 2, int(sys.argv[2])))
stages = Stage("write", "write", write), Stage("look", "look", look, reads=("write",))
config = ConfigDict({"seed": 0, "stages": ("write", "look")})
for _ in range(2):
    outcomes = run_chain(config, sys.argv[3], make_mesh(data=-1, fsdp=1), stages)
    print([outcome.ran for outcome in outcomes], outcomes[-1].record.results["parts"])
"""


def test_two_processes_wait_for_each_other_and_decide_alike(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_PROCESSES, address, str(index), str(tmp_path / "run")],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    for process in processes:
        lines, _ = process.communicate()
        assert process.returncode == 0
        assert lines.splitlines()[-1] == "[False, False] 2"
        assert "[True, True] 2" in lines


def command_line(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "onereward_jax.main", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_explains_every_stage():
    outcome = command_line("--help")
    assert outcome.returncode == 0
    text = " ".join(outcome.stdout.split())
    for stage in STAGES:
        assert f"{stage.name} {stage.summary}" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.rl.stesp=5"], "config.rl.stesp is not a field of the config; did you mean"),
        (["--stage=rl"], "stage rl reads data, which is not done: run --stage=data first"),
    ],
)
def test_mistakes_end_in_one_sentence(arguments, message, tmp_path):
    outcome = command_line("--config=configs/mini.py", f"--workdir={tmp_path / 'run'}", *arguments)
    assert outcome.returncode == 2
    assert outcome.stderr.startswith(f"error: {message}")
    assert outcome.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()
