"""What is known of the stage's settings before anything has run."""

from __future__ import annotations

from onereward_jax.chain.plugins import check_plugin
from onereward_jax.chain.stage import StageContext
from onereward_jax.parallel import local_rows
from onereward_jax.stages.evaluate.judge_verdicts import HELD_OUT, held_out_folder, open_judge
from onereward_jax.stages.evaluate.people_verdicts import check_people
from onereward_jax.stages.rl_settings import judge_options


def check(context: StageContext) -> None:
    """Checks what depends on several fields, on files or on the mesh.

    Raises:
      ValueError: nothing is to be compared, a batch that the mesh cannot share, or a folder that
        holds no judge.
      FileNotFoundError: there is no folder of the held-out judge, a file of it is missing, or there
        are no such answers of people.
    """
    config = context.config.evaluate
    check_people(context)
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
            "config.evaluate.judge is empty: a run that trains no judge needs one to compare by"
        )
    folder = held_out_folder(context)
    if folder is not None:
        side = context.config.data.image_size
        open_judge(folder, (side, side), judge_options(context.config), HELD_OUT)
