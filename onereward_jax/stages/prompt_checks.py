"""Prompts that do not fit into the judge's question: refused (all are listed) or truncated.

Prompts are checked before the chain starts, as far as they are known, and again before a stage
queries the judge, so that no data loader thread fails on one.
"""

from __future__ import annotations

import contextlib
import functools
import pathlib
from collections.abc import Iterable, Iterator, Mapping

from onereward_jax.annotation.comparisons import LINES
from onereward_jax.chain.base_models import made_by
from onereward_jax.chain.stage import StageContext
from onereward_jax.common.listing import listed
from onereward_jax.common.user_path import user_path
from onereward_jax.convert.hub import PACKAGE
from onereward_jax.convert.tokenizers import load_tokenizer
from onereward_jax.data.triplets import Triplets
from onereward_jax.parallel.progress import announce
from onereward_jax.reward import QueryTokenizer
from onereward_jax.reward.judge_folder import find_judge
from onereward_jax.reward.judge_loader import judge_template
from onereward_jax.stages.data import data_files, data_folder, folder_rows, open_triplets
from onereward_jax.stages.imported_folders import imported_folders
from onereward_jax.stages.imported_pairs import imported_comparisons
from onereward_jax.stages.make_reward import needs_judge
from onereward_jax.stages.reward_settings import query_options, query_template
from onereward_jax.tasks import DIMENSIONS, TASKS, Dimension, Task

Named = tuple[str, Task, str]
"""(name of a triplet, task, prompt)."""


def check_prompts(context: StageContext, *, made: bool = False) -> None:
    """Checks the prompts of a folder or of a TFDS data set, before the chain starts.

    Args:
      context: of any stage.
      made: a folder that a stage makes is finished; if not, it is not read.

    Raises:
      ValueError: prompts do not fit and are not truncated, or no question fits at all.
    """
    config = context.config
    if made_by(config, "models.judge"):  # its tokenizer does not exist yet
        return
    queries = _queries(context)
    if "reward" in config.stages:
        for name, comparisons in imported_comparisons(config).items():
            rows = ((one.id, one.task, one.prompt) for one in comparisons)
            refuse_unfit(queries, rows, imported_folders(config)[name] / LINES)
    if "data" not in config.stages:
        return
    if config.data.source == "folder" and (made or not made_by(config, "data.path")):
        with contextlib.suppress(FileNotFoundError):  # only the stage `data` needs the rows
            rows = ((str(row.place), row.task, row.prompt) for row in folder_rows(context))
            refuse_unfit(queries, rows, data_files(context).title)
    elif config.data.source == "tfds":
        folder = data_folder(context)
        triplets = {split: open_triplets(context, split) for split in ("train", "test")}
        refuse_unfit(queries, prompts_of(triplets), folder)


def check_prompts_of_data(context: StageContext, *, written: bool = False) -> None:
    """`check_prompts` for the stage `data`: before anything costly, also if it runs alone.

    Does nothing if no stage of the config asks a judge, or if the judge is not on this host yet.

    Args:
      context: of the stage.
      written: its triplets are written; those of a source of one's own are only known then.
    """
    config = context.config
    if "reward" in config.stages:
        named = user_path(config.models.judge or "none")
        known = named.is_dir() or (PACKAGE / named).is_dir()
    else:
        asks = "rl" in config.stages and needs_judge(config)
        known = asks and (context.output("reward") / "judge").is_dir()
    if not known:
        return
    if not written:
        check_prompts(context)
    elif config.data.source not in ("folder", "tfds"):
        triplets = {split: open_triplets(context, split) for split in ("train", "test")}
        refuse_unfit(_queries(context), prompts_of(triplets), context.output("data"))


def settle_prompts(context: StageContext, queries: QueryTokenizer, rows: Iterable[Named]) -> None:
    """Before a stage queries its judge: refuses unfit prompts, or announces how many are truncated.

    Raises:
      ValueError: prompts do not fit and are not truncated.
    """
    rows = list(rows)
    if not queries.cut_prompts:
        refuse_unfit(queries, rows, context.output("data"))
    elif cut := list(unfit(queries, rows)):
        name, prompt, _ = cut[0]
        announce(
            f"{context.stage}: {len(cut)} of {len(rows)} prompts are truncated to fit the judge's "
            f"question (config.reward.unfit_prompts), the first is {name}: {shortened(prompt)}"
        )


def _queries(context: StageContext) -> QueryTokenizer:
    """The questions of the run's judge, whatever the size of pictures."""
    config = context.config
    if "reward" in config.stages:
        folder = context.base_model("judge")
        template = query_template(config) or judge_template(folder)
    else:  # trained by an earlier run
        folder = context.output("reward") / "judge"
        template = judge_template(folder)
    tokenizer = load_tokenizer(find_judge(folder).model)
    return QueryTokenizer(tokenizer, 1, template=template, **query_options(config))


def refuse_unfit(queries: QueryTokenizer, rows: Iterable[Named], where: str | pathlib.Path) -> None:
    """Checks that all prompts can be quoted, unless they are truncated.

    Raises:
      ValueError: listing those that cannot.
    """
    if queries.cut_prompts:
        return
    found = list(unfit(queries, rows))
    if not found:
        return
    lines = [f"{name}: {shortened(prompt)}: {reason}" for name, prompt, reason in found]
    message = (
        f"{where}: {len(found)} prompts do not fit into the judge's question; "
        'config.reward.unfit_prompts = "cut" truncates them'
    )
    raise ValueError(message + listed(lines))


def unfit(queries: QueryTokenizer, rows: Iterable[Named]) -> Iterator[tuple[str, str, str]]:
    """(name, prompt, reason) of the rows whose prompt must be quoted but cannot."""
    reason_of = functools.cache(queries.unfit)
    for name, task, prompt in rows:
        if Dimension.TEXT_ALIGNMENT in DIMENSIONS[task] and (reason := reason_of(prompt)):
            yield name, prompt, reason


def prompts_of(triplets: Mapping[str, Triplets]) -> Iterator[Named]:
    """(name, task, prompt) of all triplets, by split."""
    for split, source in triplets.items():
        for name, task, prompt in zip(source.column("id"), source.tasks, source.column("prompt")):
            yield f"{split}/{name}", TASKS[task], prompt


def shortened(prompt: str) -> str:
    """The prompt, shortened for an error message."""
    return repr(prompt if len(prompt) <= 60 else prompt[:57] + "...")
