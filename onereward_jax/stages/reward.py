"""Stage `reward`: trains the judge on preferences (stage 2 of the paper).

judge/           the trained judge, a transformers folder
pairs.jsonl      the labelled pairs, made of the answers by the rules of config.reward
accuracy.json    Table 1: accuracy and position bias per task and dimension, on held-out pairs
"""

from __future__ import annotations

import collections
import functools
import json
from collections.abc import Mapping, Sequence

import grain
import jax
import numpy as np
from jaxtyping import Array

from onereward_jax.chain.base_models import made_by
from onereward_jax.chain.stage import Results, StageContext
from onereward_jax.common.atomic_file import atomic_file
from onereward_jax.convert import Weights, read_config, read_preprocessor, write_judge_folder
from onereward_jax.data.aspect_buckets import Size
from onereward_jax.data.mixing import Mixing, mixed_rows
from onereward_jax.data.pipeline import batches_of_rows, same_size_parts
from onereward_jax.evaluation.intervals import counted
from onereward_jax.evaluation.judge_accuracy import judge_accuracy_table
from onereward_jax.parallel import (
    MeshFunction,
    gather,
    is_writer,
    local_rows,
    replicate,
)
from onereward_jax.reward.judge_loader import (
    load_reward_params,
    read_reward_model,
    write_judge_template,
)
from onereward_jax.stages.collect_pairs import collect_pairs, picture_folders
from onereward_jax.stages.pair_source import PairSource, maybe_mirrored, task_shares
from onereward_jax.stages.prompt_checks import check_prompts, settle_prompts
from onereward_jax.stages.reward_settings import reward_options, reward_settings
from onereward_jax.stages.run_training import Prepared, loop_of, run_training
from onereward_jax.stages.settings import check_batch
from onereward_jax.tasks import OWN, Task
from onereward_jax.training.count_jaxpr_flops import Assumptions
from onereward_jax.training.metrics_jsonl import MetricsWriter
from onereward_jax.training.model_flops import full_attention_share, reward_model_flops
from onereward_jax.training.nonfinite_steps import Advice
from onereward_jax.training.reward_step import (
    abstract_reward_state,
    first_reward_state,
    make_answers,
    make_reward_step,
)
from onereward_jax.training.train_loop import Periodic
from onereward_jax.training.train_state import TrainState


def check(context: StageContext) -> None:
    """Checks settings, batch size, mesh, the judge's folder and prompts.

    Raises:
      FileNotFoundError, ValueError: naming the field.
    """
    config = context.config
    reward_settings(config)
    reward_options(config)
    check_batch(config, "reward", context.mesh)
    if not made_by(config, "models.judge"):
        size = (config.data.image_size, config.data.image_size)
        read_reward_model(context.base_model("judge"), size, **reward_options(config))
    check_prompts(context)


def run(context: StageContext) -> Results:
    """Trains and evaluates the judge; returns its mean accuracy for fill, extend and removal."""
    config, mesh, start = context.config.reward, context.mesh, context.base_model("judge")
    labelled = collect_pairs(context)
    everything = [pair for split in labelled.values() for pair in split]
    sizes = [size for size, _ in collections.Counter(p.size for p in everything).most_common()]
    judges = {
        size: read_reward_model(start, size, **reward_options(context.config)) for size in sizes
    }
    scorer = judges[sizes[0]].scorer  # for everything that does not depend on the size
    asked = ((f"{one.split}/{one.source}", one.task, one.prompt) for one in everything)
    settle_prompts(context, judges[sizes[0]].queries, dict.fromkeys(asked))
    queries = {size: judge.queries for size, judge in judges.items()}
    folders = picture_folders(context)
    pairs = {split: PairSource(found, folders, queries) for split, found in labelled.items()}
    settings = reward_settings(context.config)
    steps, answers = (
        {size: make(judge.scorer) for size, judge in judges.items()}
        for make in (
            lambda scorer: make_reward_step(scorer, settings, mesh),
            lambda scorer: make_answers(scorer, mesh),
        )
    )

    def first() -> TrainState:
        return first_reward_state(settings, load_reward_params(start, scorer, mesh), mesh)

    train_pairs, seed = pairs["train"], context.config.seed
    mixing = Mixing(task_shares(train_pairs.tasks, config.tasks))
    drawn = (
        mixed_rows(train_pairs.tasks, train_pairs.sizes, config.batch_size, seed, mixing)
        .map(train_pairs.__getitem__)
        .seed(seed)
        .random_map(functools.partial(maybe_mirrored, probability=config.mirror))
    )
    data = iter(
        batches_of_rows(
            drawn, config.batch_size, local_rows(config.batch_size, mesh)
        ).to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=4))
    )
    table_path = context.folder / "accuracy.json"

    def measure(state: TrainState, _writer: MetricsWriter) -> None:
        rows = measure_accuracy(answers, state, pairs["test"], config.batch_size, mesh)
        if is_writer():
            with atomic_file(table_path) as draft:
                draft.write_text(json.dumps({"step": int(state.step), "rows": rows}, indent=1))

    def model_flops() -> float:
        pair = train_pairs[0]
        shapes = {
            name: jax.ShapeDtypeStruct((config.batch_size, *np.shape(array)), array.dtype)
            for name, array in pair.items()
        }
        assumptions = Assumptions(true_share=full_attention_share(scorer))
        return reward_model_flops(
            judges[_size(shapes)].scorer, abstract.params, shapes, assumptions
        )

    abstract = abstract_reward_state(scorer, settings, mesh)
    state = run_training(
        context,
        lambda state: Prepared(
            lambda state, batch: steps[_size(batch)](state, batch),
            [Periodic(config.evaluate_every, measure)],
            model_flops,
        ),
        name="reward",
        abstract=abstract,
        first=first,
        data=data,
        loop=loop_of(context.config, "reward"),
        optimizer=settings.optimizer,
        advice=Advice("config.reward.optimizer.learning_rate", train_pairs.describe),
    )
    trained = state.params
    del state  # free Adam's moments before gathering the weights
    write_judge_folder(
        context.folder / "judge",
        model=Weights(trained, read_config(start)),
        tokenizer=start,
        preprocessor=read_preprocessor(start),
    )
    if not is_writer():
        return {}
    write_judge_template(context.folder / "judge", judges[sizes[0]].queries.template)
    return headline(json.loads(table_path.read_text())["rows"])


def _size(batch: Mapping[str, Array | jax.ShapeDtypeStruct | np.ndarray]) -> Size:
    """Image size of a batch of pairs."""
    return batch["first"].shape[1:3]


def measure_accuracy(
    answers: Mapping[Size, MeshFunction],
    state: TrainState,
    pairs: PairSource,
    batch_size: int,
    mesh: jax.sharding.Mesh,
) -> list[dict[str, object]]:
    """One row per task and dimension, with the fields of `JudgeAccuracy`."""
    probabilities = np.empty((len(pairs), 2), np.float32)
    for part in same_size_parts(pairs.sizes, np.arange(len(pairs)), batch_size):
        elements = [pairs[index] for index in np.resize(part, batch_size)]
        batch = {name: np.stack([one[name] for one in elements]) for name in elements[0]}
        both = gather(answers[_size(batch)](state.params, replicate(batch, mesh)))
        probabilities[part] = (1.0 / (1.0 + np.exp(both.no - both.yes)))[: len(part)]
    decided = [index for index, pair in enumerate(pairs.pairs) if pair.decided]
    winner_first, loser_first = np.array(
        [probabilities[index, :: 1 if pairs.pairs[index].label > 0.5 else -1] for index in decided]
    ).T
    table = judge_accuracy_table(
        [pairs.pairs[index].task for index in decided],
        [pairs.pairs[index].dimension for index in decided],
        winner_first,
        loser_first,
    )
    return [
        {"task": task.value, "dimension": dimension.value, **vars(found)}
        for (task, dimension), found in table.items()
    ]


def headline(rows: Sequence[dict]) -> Results:
    """Accuracy in % of fill, extend and removal, averaged over dimensions as in Table 1.

    With the total number of held-out pairs.
    """
    kinds = {
        "fill": (Task.FILL,),
        "extend": (Task.EXTEND_WITH_PROMPT, Task.EXTEND_WITHOUT_PROMPT),
        "removal": (Task.REMOVAL,),
        **{name: (Task(name),) for name in OWN.tasks},
    }
    result = {}
    for kind, tasks in kinds.items():
        found = [row for row in rows if row["task"] in tasks]
        if found:
            accuracy = 100.0 * float(np.mean([row["accuracy"] for row in found]))
            pairs = counted(sum(row["pairs"] for row in found), "pair")
            result[f"accuracy_{kind}"] = f"{accuracy:.1f} ({pairs})"
        else:
            result[f"accuracy_{kind}"] = "not measured (no held-out pairs)"
    return result
