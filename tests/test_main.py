"""Configs fit the stages that they name; the command line says what is wrong."""

import ast
import dataclasses
import json
import pathlib
import re
import subprocess
import sys

import jax
import pytest
from ml_collections import ConfigDict, FrozenConfigDict

import onereward_jax
from onereward_jax.chain import Stage, StageContext, allowed_values, plugins
from onereward_jax.chain.closing_table import print_outcomes
from onereward_jax.chain.preflight import check_config
from onereward_jax.chain.runner import Outcome
from onereward_jax.chain.stage_record import StageRecord
from onereward_jax.chain.staleness import OF_THE_RUN, leaves, readers, require_sections
from onereward_jax.common.config_files import (
    check_overrides,
    check_tuples,
    flatten_config,
    load_config,
)
from onereward_jax.common.user_errors import full_disk_message
from onereward_jax.models.lora import LoraConfig
from onereward_jax.parallel import make_mesh
from onereward_jax.parallel.mesh import MESH_AXES
from onereward_jax.reward import Jitter
from onereward_jax.stages import STAGES
from onereward_jax.stages.own_stages import stages_of
from onereward_jax.stages.settings import model_kinds
from onereward_jax.tasks import Dimension, Task
from onereward_jax.training.optimizer import OptimizerConfig
from onereward_jax.training.reward_step import RewardConfig
from onereward_jax.training.rl_config import RLConfig
from onereward_jax.training.train_loop import LoopConfig

ROOT = pathlib.Path(onereward_jax.__file__).parents[1]
SHARED = ("__init__.py", "defaults.py")
CONFIGS = sorted(p for p in (ROOT / "configs").glob("*.py") if p.name not in SHARED)


def get_config(name: str) -> ConfigDict:
    return load_config(str(ROOT / "configs" / f"{name}.py"))


def test_base_models_come_from_an_earlier_stage_a_path_or_the_package(tmp_path):
    def find(model: str) -> pathlib.Path:
        config = ConfigDict({"stages": ("rl",), "models": {"judge": model}})
        mesh = make_mesh(data=jax.device_count(), fsdp=1)
        return StageContext("rl", FrozenConfigDict(config), tmp_path, mesh).base_model("judge")

    assert find(str(tmp_path)) == tmp_path
    assert find("models") == ROOT / "onereward_jax" / "models"
    assert find("stage:pretrain/judge") == tmp_path / "pretrain" / "judge"
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
    config, stages = stages_of(get_config(path.stem))
    table = {stage.name: stage for stage in stages}
    assert list(config.stages) == [name for name in table if name in config.stages]
    present = [table[name] for name in config.stages]
    for stage in present:
        require_sections(stage, FrozenConfigDict(config))
    check_config(FrozenConfigDict(config), present, ())
    # Fields of these are in every config, so that --stage=curate and --stage=benchmark run with it.
    apart = [table["curate"], table["benchmark"]]
    covered = [
        name
        for name in leaves(config)
        if any(entry.covered([name]) for stage in (*present, *apart) for entry in stage.fields)
        or any(name in readers(stage, FrozenConfigDict(config)) for stage in present)
        or name.partition(".")[0] in OF_THE_RUN
    ]
    assert set(covered) == set(leaves(config)), "fields that no stage reads in any mode"
    rules = {rule for stage in present for rule in stage.rules}
    rules |= {
        name
        for field in plugins.FUNCTIONS
        for name in plugins.fields_of(FrozenConfigDict(config), field)
    }
    assert set(leaves(config)) <= rules | set(allowed_values.RULES)
    json.dumps(flatten_config(config))


def test_fields_that_are_missing_or_of_another_kind_are_named():
    config = get_config("mini")
    present = [stage for stage in STAGES if stage.name in ("candidates", "rl")]
    with config.ignore_type():
        config.candidates.true_cfg_scale = 3.0
    del config.rl["t1"]
    del config["export"]  # no stage reads it
    with pytest.raises(ValueError) as said:
        check_config(FrozenConfigDict(config), present, ())
    missing, wrong = str(said.value).split("\n")
    assert missing == "config.rl.t1 is missing: an integer from 0 expected"
    assert wrong.startswith("config.candidates.true_cfg_scale is 3.0: two numbers from 0 expected")


@pytest.mark.parametrize("name", ["defaults", "make_mini"])
def test_every_config_field_is_explained_on_its_line(name):
    explained, _, _ = (ROOT / "configs" / f"{name}.py").read_text().partition("def smoke")
    fields = re.findall(r"^ +\w+\.\w+ = (.*)$", explained, re.MULTILINE)
    # A value that ends in a bracket is a section; its own fields are looked at.
    unexplained = [
        value for value in fields if "  # " not in value and not value.endswith((")", "("))
    ]
    assert fields and not unexplained


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_experiment_says_how_it_is_run_what_it_costs_and_what_comes_out(path):
    header = ast.get_docstring(ast.parse(path.read_text()))
    assert f"--config=configs/{path.name}" in header or "launch/" in header
    assert "Cost: " in header and "Result: " in header


def test_the_large_config_has_the_fields_of_the_small_one():
    mini, large = (flatten_config(get_config(name)) for name in ("mini", "flux_fill_dev"))
    mini = {name: value for name, value in mini.items() if not name.startswith("config.mini.")}
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

    def sections(one: Stage) -> set[str]:
        return {name.partition(".")[0] for entry in one.fields for name in entry.names}

    declared, earlier = sections(stage), list(stage.reads)
    while earlier:  # a change of their sections reaches this stage through their output
        declared |= sections(table[earlier[-1]])
        earlier.extend(table[earlier.pop()].reads)
    known = {section for one in STAGES for section in sections(one)}
    read = set(re.findall(r"\bconfig\.(\w+)", source)) & known - {"seed"}
    assert read <= declared
    reads = {stage.name, *stage.reads, *stage.reads_also(FrozenConfigDict(get_config("mini")))}
    assert set(re.findall(r"\.output\(\"(\w+)\"\)", source)) <= reads


def test_every_field_is_read():
    """By its name, or as a field of the dataclass that its section becomes."""
    folders = (ROOT / "onereward_jax" / name for name in ("stages", "mini", "chain"))
    text = "\n".join(path.read_text() for folder in folders for path in folder.rglob("*.py"))
    text += (ROOT / "onereward_jax" / "main.py").read_text()
    kinds = (RLConfig, RewardConfig, OptimizerConfig, LoopConfig, Jitter, LoraConfig)
    known = {field.name for kind in kinds for field in dataclasses.fields(kind)}
    known |= {*MESH_AXES, *Task, *Dimension}  # make_mesh(**config.mesh), sections
    for name in {**leaves(get_config("make_mini")), **leaves(get_config("mini"))}:
        field = name.rpartition(".")[2]
        assert field in known or re.search(rf"[.\"]{field}\b", text), name


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
        (["--stage=rl"], "stage rl reads data, which is not complete: run --stage=data first"),
        (["--config.models.editor=mini/models/judge"], "config.models.editor: "),
        (
            ["--config.models.transformer=mini/models/editor/vae"],
            "config.models.editor or config.models.transformer: ",
        ),
        (["--workdir="], "--workdir and either --config or --resume"),
    ],
)
def test_mistakes_end_in_one_sentence(arguments, message, tmp_path):
    outcome = command_line("--config=configs/mini.py", f"--workdir={tmp_path / 'run'}", *arguments)
    assert outcome.returncode == 2
    assert outcome.stderr.startswith(f"error: {message}")
    assert outcome.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_paths_stand_whole_below_the_closing_table(capsys):
    results = {
        "fill": "+9.5 % [+3.5, +15.5] (200 triplets)",
        "report": "evaluate/report/index.html",
    }
    record = StageRecord("complete", {}, seconds=12.3, results=results)
    print_outcomes([Outcome("evaluate", True, record)], f"runs/{40 * 'long'}/")
    table, path = capsys.readouterr().out.strip().rsplit("\n", 1)
    assert path == f"report: runs/{40 * 'long'}/evaluate/report/index.html"
    assert "+9.5" in table and "index.html" not in table


def test_a_full_disk_is_known_whoever_writes():
    with pytest.raises(OSError) as said:
        pathlib.Path("/dev/full").write_text("x")
    assert full_disk_message(said.value)
    behind = RuntimeError("cannot rollback - no transaction is active")
    behind.__cause__ = said.value
    assert full_disk_message(behind) == "[Errno 28] No space left on device"
    # As the writers of safetensors and of ArrayRecord put it.
    for words in (
        "Error while serializing: I/O error: No space left on device (os error 28)",
        'Failed to finalize writing of split "train": write() failed: No space left on device',
    ):
        assert full_disk_message(RuntimeError(words))
    assert not full_disk_message(ValueError("config.rl.steps is 28: too many"))
