"""The chain skips, resumes, refuses and loses nothing: with three small real stages."""

import dataclasses
import pathlib
import re
import shutil
import socket
import subprocess
import sys

import jax
import pytest
from ml_collections import ConfigDict

import onereward_jax
from onereward_jax.chain import Stage, StageContext, allowed_values, run_chain
from onereward_jax.chain.allowed_values import FLAG, TEXT, Rule, each, whole
from onereward_jax.chain.saved_command import Command, read_command
from onereward_jax.chain.stage_record import read_record
from onereward_jax.chain.staleness import Effect, adds, grows, how, output, updates
from onereward_jax.parallel import make_mesh

ROOT = pathlib.Path(onereward_jax.__file__).parents[1]

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
    Stage("count", "count", count, fields=(output("count"),)),
    Stage(
        "double",
        "double",
        double,
        fields=(how("double.fail_after"), grows("double.steps"), adds("double.more")),
        reads={"count": Effect.OUTPUT},
        resumes=True,
    ),
    Stage("total", "add up", total, reads={"double": Effect.OUTPUT}),
)


@pytest.fixture
def config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "stages": ("count", "double", "total"),
            "count": {"size": 4, "fail": False, "choices": (1, 2)},
            "double": {"fail_after": -1, "steps": 1, "more": ""},
        }
    )


def run(
    config: ConfigDict,
    workdir: pathlib.Path,
    only: str | None = None,
    chain: tuple[Stage, ...] = CHAIN,
    command: Command | None = None,
) -> dict[str, bool]:
    mesh = make_mesh(data=jax.device_count(), fsdp=1)
    outcomes = run_chain(config, workdir, mesh, chain, only, command)
    return {outcome.stage: outcome.ran for outcome in outcomes}


@pytest.fixture(autouse=True)
def rules(monkeypatch):
    """The fields of the chain above have rules too."""
    rules = {
        "count.size": whole(0),
        "count.fail": FLAG,
        "count.choices": each(whole(1)),
        "double.fail_after": Rule("", lambda value: True),
        "double.steps": whole(1),
        "double.more": TEXT,
    }
    for name, rule in rules.items():
        monkeypatch.setitem(allowed_values.RULES, name, rule)


EVERYTHING = {"count": True, "double": True, "total": True}
NOTHING = dict.fromkeys(EVERYTHING, False)


def test_complete_stages_run_again_only_when_their_output_would_differ(config, tmp_path, capsys):
    assert run(config, tmp_path) == EVERYTHING
    assert read_record(tmp_path / "total").results == {"total": 12}
    assert run(config, tmp_path) == NOTHING
    config.double.fail_after = -2  # how, not what
    config.seed = 1  # read by none of them
    assert run(config, tmp_path) == NOTHING

    config.count.size = 3
    assert run(config, tmp_path) == EVERYTHING
    assert read_record(tmp_path / "total").results == {"total": 6}
    said = capsys.readouterr().out
    assert "(config.count.size: 4 -> 3)" in said
    assert "total: old output moved" in said or "total: starting" in said


def test_a_stage_that_is_written_over_says_what_has_changed(config, tmp_path, capsys):
    chain = (dataclasses.replace(CHAIN[0], fields=(updates("count"),)),)
    config.stages = ("count",)
    run(config, tmp_path, chain=chain)
    config.count.size = 3
    assert run(config, tmp_path, chain=chain) == {"count": True}
    assert "count: starting (config.count.size: 4 -> 3)" in capsys.readouterr().out
    assert not list(tmp_path.glob("*.old-*"))


def test_steps_may_grow_and_what_adds_concerns_no_reader(config, tmp_path, capsys):
    run(config, tmp_path)
    written = (tmp_path / "double" / "0").stat().st_mtime_ns
    config.double.steps = 2
    assert run(config, tmp_path) == {"count": False, "double": True, "total": True}
    assert "double: resuming (config.double.steps: 1 -> 2)" in capsys.readouterr().out
    assert (tmp_path / "double" / "0").stat().st_mtime_ns == written
    config.double.more = "x"
    assert run(config, tmp_path) == {"count": False, "double": True, "total": False}
    assert (tmp_path / "double" / "0").stat().st_mtime_ns == written

    config.double.steps = 1  # `double` went on in its folder; `total` was kept, and is taken back
    assert run(config, tmp_path) == {"count": False, "double": True, "total": False}
    assert (tmp_path / "double.old-1" / "0").exists()
    assert (tmp_path / "double" / "0").stat().st_mtime_ns != written


def test_another_format_makes_a_stage_run_again_another_package_version_does_not(
    config, tmp_path, monkeypatch
):
    run(config, tmp_path)
    monkeypatch.setattr(onereward_jax, "__version__", "99")
    assert run(config, tmp_path) == NOTHING
    other = (CHAIN[0], dataclasses.replace(CHAIN[1], format=2), CHAIN[2])
    assert run(config, tmp_path, chain=other) == {"count": False, "double": True, "total": True}
    template = (*other[:2], dataclasses.replace(CHAIN[2], versions={"template": "b"}))
    assert run(config, tmp_path, chain=template) == {"count": False, "double": False, "total": True}


def test_a_stage_made_anew_from_the_same_inputs_concerns_no_reader(config, tmp_path):
    run(config, tmp_path)
    shutil.rmtree(tmp_path / "double")
    assert run(config, tmp_path) == {"count": False, "double": True, "total": False}


def test_output_of_other_settings_is_kept_and_taken_back(config, tmp_path, capsys):
    run(config, tmp_path)
    for size in (2, 3):
        config.count.size = size
        run(config, tmp_path)
    kept = [tmp_path / f"count.old-{number}" / "numbers.txt" for number in (1, 2)]
    assert [len(path.read_text().split()) for path in kept] == [4, 2]
    assert not (tmp_path / "double" / "3").exists()

    config.count.size = 4
    written = kept[0].stat().st_mtime_ns
    assert run(config, tmp_path) == NOTHING
    assert (tmp_path / "count" / "numbers.txt").stat().st_mtime_ns == written
    assert read_record(tmp_path / "total").results == {"total": 12}
    assert "count.old-1 is restored: it was made from these inputs" in capsys.readouterr().out
    # What took its place while it was away is kept in turn; what is damaged is in nobody's way.
    (tmp_path / "count.old-9").mkdir()
    (tmp_path / "count.old-9" / "stage.json").write_text("{")
    config.count.size = 3
    assert run(config, tmp_path) == NOTHING


def test_finished_output_of_more_steps_is_taken_back(config, tmp_path, capsys):
    config.double.steps = 3
    run(config, tmp_path)
    config.double.steps = 2
    assert run(config, tmp_path)["double"]
    config.double.steps = 3
    assert run(config, tmp_path) == NOTHING
    assert "double.old-1 is restored" in capsys.readouterr().out
    # What was left half-way is gone on with where it is.
    (tmp_path / "double.old-2" / "stage.json").unlink()
    config.double.steps = 4
    assert run(config, tmp_path)["double"]
    assert "double: resuming (config.double.steps: 3 -> 4)" in capsys.readouterr().out


def test_former_output_is_taken_back_to_go_on_from(config, tmp_path, capsys):
    """Settings return while steps have grown: nothing that was made is made again."""
    run(config, tmp_path)
    written = (tmp_path / "double" / "0").stat().st_mtime_ns
    config.count.size = 2
    run(config, tmp_path)
    config.count.size, config.double.steps = 4, 2
    assert run(config, tmp_path) == {"count": False, "double": True, "total": True}
    assert (tmp_path / "double" / "0").stat().st_mtime_ns == written
    said = capsys.readouterr().out
    assert "double.old-1 is restored: to resume from" in said
    assert "double: resuming (config.double.steps: 1 -> 2)" in said


def test_nothing_is_touched_before_everything_is_checked(config, tmp_path):
    def refuse(context: StageContext) -> None:
        raise ValueError("config.total is not to anybody's taste")

    run(config, tmp_path)
    chain = (*CHAIN[:2], dataclasses.replace(CHAIN[2], check=refuse))
    assert run(config, tmp_path, chain=chain) == NOTHING  # nothing is to be done, so none is asked
    config.count.size = 3
    with pytest.raises(ValueError, match="not to anybody's taste"):
        run(config, tmp_path, chain=chain)
    config.count.size = -1
    config.double.steps = 0
    message = (
        "config.count.size is -1: an integer from 0 expected\n"
        "config.double.steps is 0: an integer from 1 expected"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        run(config, tmp_path)
    assert not list(tmp_path.glob("*.old-*"))
    config.update(count={"size": 4}, double={"steps": 1})
    assert run(config, tmp_path) == NOTHING


def test_fields_that_are_set_and_read_by_nobody_are_named(config, tmp_path):
    chain = (
        dataclasses.replace(CHAIN[0], fields=(output("count.size"), output("count.fail", when={
            "count.size": (1, 2)}))),
        *CHAIN[1:],
    )  # fmt: skip
    command = Command("x.py", ("--config.count.fail=false",))
    message = r"config\.count\.fail is set, but it is read only with config\.count\.size = 1 or 2"
    with pytest.raises(ValueError, match=message):
        run(config, tmp_path, chain=chain, command=command)
    config.count.size = 2
    assert run(config, tmp_path, chain=chain, command=command) == EVERYTHING
    assert read_command(tmp_path) == command


def test_forgotten_flags_are_named_and_nothing_is_moved(config, tmp_path):
    config.count.size = 3
    run(config, tmp_path)
    config.count.size = 4
    message = r"reads count, .*\(config\.count\.size: 3 -> 4\): use the same flags .*--resume"
    for stage in ("double", "total"):
        with pytest.raises(ValueError, match=message):
            run(config, tmp_path, only=stage)
    assert not list(tmp_path.glob("*.old-*"))


def test_after_one_stage_alone_the_outdated_ones_are_named(config, tmp_path, capsys):
    run(config, tmp_path)
    config.double.steps = 2
    run(config, tmp_path, only="double")
    assert "total is outdated, made from an older double" in capsys.readouterr().out
    run(config, tmp_path)
    run(config, tmp_path, only="double")
    assert "former double" not in capsys.readouterr().out


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
    config.double.fail_after = -1


def test_one_stage_alone_wants_everything_it_reads_up_to_date(config, tmp_path):
    with pytest.raises(ValueError, match="double reads count, which is not complete: run --stage"):
        run(config, tmp_path, only="total")
    run(config, tmp_path)
    config.count.size = 5
    with pytest.raises(ValueError, match=r"reads count, .*config\.count\.size: 4 -> 5"):
        run(config, tmp_path, only="total")
    assert run(config, tmp_path, only="count") == {"count": True}
    with pytest.raises(ValueError, match=r"reads double, .*\(the output of count has changed"):
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


TWO_PROCESSES = """
import sys
import jax
from ml_collections import ConfigDict
from onereward_jax.parallel import make_mesh
from onereward_jax.parallel.distributed import find_cluster_config, initialize
from onereward_jax.chain import Stage, run_chain
from onereward_jax.chain.staleness import Effect

def write(context):
    (context.folder / f"part-{jax.process_index()}").write_text("")

def look(context):
    return {"parts": len(list(context.output("write").glob("part-*")))}

initialize(find_cluster_config(sys.argv[1], 2, int(sys.argv[2])))
stages = (
    Stage("write", "write", write),
    Stage("look", "look", look, reads={"write": Effect.OUTPUT}),
)
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
