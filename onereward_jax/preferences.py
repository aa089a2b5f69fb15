"""Export and import preferences: a run's own, or those of other tools and public data sets.

    onereward preferences export --workdir=runs/x --format=huggingface --to=prefs-hub
    onereward preferences import --format=edit_reward --from=train.json --pictures=images \\
      --task=fill --dimensions=instruction_following=text_alignment,visual_quality=aesthetics \\
      --license=... --to=prefs

`import` writes a preferences folder, which `config.reward.preferences` names to train a judge.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onereward_jax.common.user_errors import (
    CommandParser,
    exit_with,
    full_disk_message,
    run_command,
)
from onereward_jax.common.user_path import user_path
from onereward_jax.data.example import SPLITS
from onereward_jax.parallel.progress import announce
from onereward_jax.tasks import Dimension, Task, dimension_named, plain_name, task_named

if TYPE_CHECKING:
    from onereward_jax.exchange.options import Options, Source

PROG = "onereward preferences"
PLAIN = {"extend": "say extend_with_prompt or extend_without_prompt"}


def export_parser() -> CommandParser:
    """The options of `export`."""
    parser = CommandParser(prog=f"{PROG} export", description=_described("write"))
    add = parser.add_argument
    add("--workdir", help="work folder of a run, local or gs://bucket/path")
    add("--from", dest="source", type=user_path, help="or a preferences folder")
    add("--format", default="folder", help="format to write; default: folder")
    add("--to", required=True, type=user_path, help="the new folder")
    add("--license", default="", help="licence of the data, as in cc-by-4.0")
    add("--without_answers", action="store_true", help="only the comparisons, to ask again")
    add("--url", default="", help="label_studio: what the paths of pictures start with")
    return parser


def import_parser() -> CommandParser:
    """The options of `import`."""
    parser = CommandParser(prog=f"{PROG} import", description=_described("read"))
    add = parser.add_argument
    add("--format", default="folder", help="format to read; default: folder")
    add("--from", dest="source", required=True, type=user_path, help="the file or folder")
    add("--to", required=True, type=user_path, help="the new preferences folder")
    add("--pictures", type=user_path, help="folder of the pictures; default: that of the file")
    add("--task", help=f"task of rows that state none: {', '.join(Task)}")
    add(
        "--dimensions",
        default="",
        help="NAME=DIMENSION,...: dimensions of the file as ours; or one DIMENSION for all rows. "
        f"There are {', '.join(Dimension)}",
    )
    add("--columns", default="", help="table, edit_reward: OURS=COLUMN,... where names differ")
    add("--labels", default="", help='table: a=LABEL,b=LABEL,tie=LABEL; default: "a", "b", "tie"')
    add("--annotator", default="", help="annotator of rows that state none")
    add("--split", choices=SPLITS, help="split of all rows; default: as stated, or by the source")
    add("--license", default="", help="licence of the data, written to about.json")
    add(
        "--bad_rows",
        choices=("refuse", "skip"),
        default="refuse",
        help="rows that cannot be read: refuse all (the default), or leave those out",
    )
    return parser


def export(options: argparse.Namespace) -> None:
    """Writes a run's preferences, or a preferences folder, in a format.

    Raises:
      FileNotFoundError, ValueError: an option or the data is wrong.
    """
    from onereward_jax.exchange.conversion import check_new, export_to
    from onereward_jax.exchange.options import Options
    from onereward_jax.stages.run_comparisons import open_run

    _check_format(options.format, "write")
    check_new(options.to)
    if bool(options.workdir) == bool(options.source):
        raise ValueError("either --workdir or --from is needed: a run, or a preferences folder")
    chosen = Options(url=options.url, name=options.to.name)
    if options.workdir:
        source, where = open_run(options.workdir), options.workdir
    else:
        source, where = _open("folder", options.source, chosen), str(options.source)
    source = _licensed(source, options.license)
    if options.without_answers:
        source = dataclasses.replace(source, rows=_without_answers(source))
    count = _if_disk_full(
        lambda: export_to(options.to, options.format, source, where, chosen), options.to
    )
    announce(f"{options.to}: {count} comparisons as {options.format}")


def import_(options: argparse.Namespace) -> None:
    """Writes a preferences folder from another format.

    Raises:
      FileNotFoundError, ValueError: an option or the data is wrong.
    """
    from onereward_jax.exchange.conversion import check_new, import_to

    _check_format(options.format, "read")
    check_new(options.to)
    source = _open(options.format, options.source, import_options(options))
    origin = {"format": options.format, "from": options.source.name} | dict(source.origin)
    source = dataclasses.replace(_licensed(source, options.license), origin=origin)
    skip = options.bad_rows == "skip"
    written, left_out = _if_disk_full(
        lambda: import_to(options.to, source, str(options.source), skip=skip), options.to
    )
    counts = written.counts
    if left_out:
        announce(f"left out: {left_out}")
    if written.joined:
        announce(f"{written.joined} rows are about the same pictures as others: joined")
    if written.repeated:
        announce(f"{written.repeated} answers are there more than once: kept once")
    announce(
        f"{options.to}: {counts['comparisons']} comparisons of {counts['sources']} source pictures "
        f"(train {counts['train']}, test {counts['test']}), {counts['answers']} answers "
        f"({counts['undecided']} see no difference), {counts['pictures']} pictures"
    )
    for split in SPLITS:
        if not counts[split]:
            announce(f"no comparison is in the split {split}: a judge needs both")
    if not source.license:
        announce("the licence is not known: check that you may use the data, then set --license")


def import_options(options: argparse.Namespace) -> Options:
    """The reader's options of a command line; raises ValueError, naming the option."""
    from onereward_jax.exchange.options import Options

    task = None
    if options.task:
        if plain_name(options.task) in PLAIN:
            raise ValueError(f"--task: {PLAIN[plain_name(options.task)]}")
        try:
            task = task_named(options.task)
        except ValueError as error:
            raise ValueError(f"--task: {error}") from None
    if options.pictures and not options.pictures.is_dir():
        raise FileNotFoundError(f"--pictures: there is no folder {options.pictures}")
    return Options(
        pictures=options.pictures,
        task=task,
        dimensions=_dimensions(options.dimensions),
        columns=_pairs("--columns", options.columns),
        labels=_pairs("--labels", options.labels),
        annotator=options.annotator,
        split=options.split,
    )


def _dimensions(value: str) -> dict[str, Dimension]:
    if value and "=" not in value:
        value = f"{value}={value}"
    found = _pairs("--dimensions", value)
    for name in found.values():
        if plain_name(name) not in tuple(Dimension):
            raise ValueError(f"--dimensions: {name!r} is none of {', '.join(Dimension)}")
    named = {name: dimension_named(own) for name, own in found.items()}
    if len(set(named.values())) < len(named):
        raise ValueError("--dimensions: two dimensions of the file are the same one of ours")
    return named


def _pairs(option: str, value: str) -> dict[str, str]:
    """The entries of "a=x,b=y"; raises ValueError, naming the option."""
    found: dict[str, str] = {}
    for entry in filter(None, value.split(",")):
        name, equals, other = (part.strip() for part in entry.partition("="))
        if not (name and equals and other):
            raise ValueError(f"{option}: {entry!r} is not NAME=NAME")
        if name in found:
            raise ValueError(f"{option}: {name!r} is given twice")
        found[name] = other
    return found


def _open(format: str, path: Path, options: Options) -> Source:
    from onereward_jax.exchange.formats import FORMATS

    if not path.exists():
        raise FileNotFoundError(f"--from: there is no file or folder {path}")
    return FORMATS[format].read(path, options)


def _licensed(source: Source, license: str) -> Source:
    return dataclasses.replace(source, license=license or source.license)


def _without_answers(source: Source) -> Any:
    from onereward_jax.annotation.given_comparisons import Given, Row

    for place, given in source.rows:
        if isinstance(given, Given):
            given = dataclasses.replace(given, answers=())
        yield Row(place, given)


def _check_format(name: str, way: str) -> None:
    from onereward_jax.exchange.formats import FORMATS

    able = [one for one, format in FORMATS.items() if getattr(format, way)]
    if name not in able:
        raise ValueError(f"--format: {name!r} is none of {', '.join(able)}")


def _described(way: str) -> str:
    """The help text, with the formats that can be read or written."""
    from onereward_jax.exchange.formats import FORMATS

    lines = [
        f"  {name:14}{format.summary}" for name, format in FORMATS.items() if getattr(format, way)
    ]
    return "\n".join([__doc__, "formats:", *lines])


def _if_disk_full(call: Callable[[], Any], folder: Path) -> Any:
    try:
        return call()
    except OSError as error:
        if message := full_disk_message(error):
            raise OSError(f"{folder}: the disk is full ({message}): nothing was written") from error
        raise


COMMANDS: Mapping[str, tuple[Callable[[], CommandParser], Callable[[argparse.Namespace], None]]] = {
    "export": (export_parser, export),
    "import": (import_parser, import_),
}


def main(argv: list[str] | None = None) -> None:
    """The command, on `argv` or the command line."""
    argv = sys.argv[1:] if argv is None else argv
    name = argv[0] if argv else ""
    if name not in COMMANDS:
        parser = CommandParser(prog=PROG, description=__doc__)
        parser.add_argument("command", choices=tuple(COMMANDS), help="add --help for its options")
        run_command(parser, lambda options: None, argv[:1])
        return
    make, run = COMMANDS[name]
    try:
        parser = make()
    except ModuleNotFoundError as error:  # the extra people is not installed
        exit_with(error)
    run_command(parser, run, argv[1:])


if __name__ == "__main__":
    main()
