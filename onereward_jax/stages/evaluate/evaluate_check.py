"""Checks of the stage before the chain starts."""

from __future__ import annotations

from onereward_jax.chain.plugins import check_plugin
from onereward_jax.chain.stage import StageContext
from onereward_jax.parallel import local_rows
from onereward_jax.stages.compared_editors import other_editors
from onereward_jax.stages.evaluate.judge_verdicts import HELD_OUT, held_out_folder, open_judge
from onereward_jax.stages.evaluate.people_verdicts import check_people
from onereward_jax.stages.rl_settings import judge_options


def check(context: StageContext) -> None:
    """Checks what depends on multiple fields, on files or on the mesh.

    Raises:
      ValueError: no triplets to compare, a batch size that does not fit the mesh, or a folder that
        is not a judge.
      FileNotFoundError: the held-out judge, a file of it, or the answers do not exist.
    """
    config = context.config.evaluate
    check_people(context)
    other_editors(context.config)
    check_plugin(context.config, "evaluate.oracle")
    if not any(config.triplets.values()):
        raise ValueError("config.evaluate.triplets is 0 for every task: nothing is compared")
    try:
        local_rows(config.batch_size, context.mesh)
    except ValueError as error:
        raise ValueError(f"config.evaluate.batch_size: {error}") from error
    own = "reward" in context.config.stages or (context.output("reward") / "judge").is_dir()
    if not own and not config.judge and not config.oracle:
        raise ValueError(
            "config.evaluate.judge is empty: a run without a trained judge needs one to compare"
        )
    folder = held_out_folder(context)
    if folder is not None:
        side = context.config.data.image_size
        open_judge(folder, (side, side), judge_options(context.config), HELD_OUT)
