"""Stage `reward`: trains the judge on preferences (stage 2 of the paper).

judge/           the trained judge, a transformers folder
pairs.jsonl      the preferences, and the candidates they are about
accuracy.json    Table 1: accuracy and position bias per task and dimension, on held-out pairs
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import grain
import jax
import numpy as np
from jaxtyping import Array, Integer
from PIL import Image

from onereward_jax.annotation import Preference, PreferenceStore
from onereward_jax.chain.base_models import made_by
from onereward_jax.chain.stage import Results, StageContext
from onereward_jax.common.atomic_file import atomic_file
from onereward_jax.common.pixels import from_uint8
from onereward_jax.convert import Weights, read_config, read_preprocessor, write_judge_folder
from onereward_jax.data.aspect_buckets import Size
from onereward_jax.data.mixing import Mixing, mixed_rows
from onereward_jax.data.pipeline import batches_of_rows, same_size_parts, sizes_of
from onereward_jax.data.triplets import Triplets
from onereward_jax.evaluation.intervals import counted
from onereward_jax.evaluation.judge_accuracy import judge_accuracy_table
from onereward_jax.parallel import (
    MeshFunction,
    gather,
    is_writer,
    local_rows,
    replicate,
)
from onereward_jax.reward import QueryTokenizer
from onereward_jax.reward.judge_loader import (
    load_reward_params,
    read_reward_model,
    write_judge_template,
)
from onereward_jax.stages.data import open_triplets
from onereward_jax.stages.preference_stores import read_store
from onereward_jax.stages.prompt_checks import check_prompts, prompts_of, settle_prompts
from onereward_jax.stages.reward_settings import reward_options, reward_settings
from onereward_jax.stages.run_training import Prepared, loop_of, run_training
from onereward_jax.stages.settings import check_batch
from onereward_jax.tasks import DIMENSIONS, OWN, TASKS, Dimension, Task
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

PAIRS = "pairs.jsonl"


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
    triplets = {split: open_triplets(context, split) for split in ("train", "test")}
    sizes = list(dict.fromkeys(size for split in triplets.values() for size in sizes_of(split)))
    judges = {
        size: read_reward_model(start, size, **reward_options(context.config)) for size in sizes
    }
    scorer = judges[sizes[0]].scorer  # for everything that does not depend on the size
    settle_prompts(context, judges[sizes[0]].queries, prompts_of(triplets))
    if is_writer():
        with read_store(context, "annotate") as store:
            store.export_jsonl(context.folder / PAIRS)
    context.share(PAIRS)
    pairs = {
        split: PairSource(
            context,
            split,
            triplets[split],
            {size: judge.queries for size, judge in judges.items()},
            between,
        )
        for split, between in (("train", config.between), ("test", False))
    }
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


class PairSource:
    """The decided preferences of a split, with the fields of `preference_loss.Pairs`; a grain
    source.

    Attributes:
      tasks: int32 [n], task of each pair, an index into `tasks.TASKS`.
      sizes: int32 [n, 2], image height and width of each pair.
    """

    def __init__(
        self,
        context: StageContext,
        split: str,
        triplets: Triplets,
        queries: Mapping[Size, QueryTokenizer],
        between: bool = False,
    ) -> None:
        """Reads the stage's copy of the store (the store itself is on one host); images on access.

        Args:
          context: context of the stage.
          split: "train" or "test".
          triplets: triplets of this split.
          queries: query tokenizer per image size.
          between: also train on (best, middle) and (middle, worst) pairs.

        Raises:
          ValueError: the split has no decided pair.
        """
        with PreferenceStore(":memory:") as store:
            store.import_jsonl(context.folder / PAIRS)
            self._preferences = [
                one
                for one in store.preferences()
                if one.triplet_id.startswith(f"{split}/") and one.winner is not None
            ]
            pictures = {(one.triplet_id, one.index): one.picture for one in store.candidates()}
        if between:
            counts = collections.Counter(triplet for triplet, _ in pictures)
            self._preferences = [
                pair for one in self._preferences for pair in implied(one, counts[one.triplet_id])
            ]
        if not self._preferences:
            where = context.folders.place(context.output("annotate"))
            raise ValueError(f"{where}: no decided pair of {split}")
        self._folder, self._pictures = context.output("candidates"), pictures
        rows = {f"{split}/{name}": row for row, name in enumerate(triplets.column("id"))}
        of_triplet = np.array([rows[one.triplet_id] for one in self._preferences])
        self.tasks, self.sizes = triplets.tasks[of_triplet], triplets.sizes[of_triplet]
        prompts = triplets.column("prompt")
        self._asked: dict[int, tuple[np.ndarray, ...]] = {}
        for part in same_size_parts(self.sizes, np.arange(len(self)), len(self)):
            asked = queries[tuple(self.sizes[part[0]].tolist())].encode_dimensions(
                [self._preferences[index].task for index in part],
                [self._preferences[index].dimension for index in part],
                [prompts[of_triplet[index]] for index in part],
            )
            self._asked |= zip(part.tolist(), zip(*asked))

    def __len__(self) -> int:
        return len(self._preferences)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        one = self._preferences[index]
        prefix, suffix, suffix_mask = self._asked[int(index)]
        return {
            "winner": self._picture(one, one.winner),
            "loser": self._picture(one, one.loser),
            "task": np.int32(TASKS.index(one.task)),
            "dimension": np.int32(DIMENSIONS[one.task].index(one.dimension)),
            "query_prefix": prefix,
            "query_suffix": suffix,
            "query_suffix_mask": suffix_mask,
            "index": np.int32(index),
        }

    def cell(self, index: int) -> tuple[Task, Dimension]:
        """Task and dimension of pair `index`."""
        return self._preferences[index].task, self._preferences[index].dimension

    def describe(self, index: int) -> dict[str, str | int]:
        """Describes pair `index` for messages; images are paths in the stage `candidates`."""
        one = self._preferences[index]
        pictures = {
            name: self._pictures[one.triplet_id, number]
            for name, number in (("winner", one.winner), ("loser", one.loser))
        }
        return {"triplet": one.triplet_id, "dimension": one.dimension.value, **pictures}

    def _picture(self, one: Preference, candidate: int) -> np.ndarray:
        path: Path = self._folder / self._pictures[one.triplet_id, candidate]
        with Image.open(path) as picture:
            return from_uint8(np.asarray(picture))


def task_shares(tasks: Integer[np.ndarray, "n"], drawn: str) -> dict[Task, float]:
    """The probability of each task when drawing pairs; sums to 1.

    Args:
      tasks: task of each pair, an index into `tasks.TASKS`.
      drawn: "as_found": in proportion to the number of pairs; "evenly": equally often, for tasks
        with few pairs (few dimensions, or similar candidates).

    Raises:
      ValueError: another value of `drawn`.
    """
    found, counts = np.unique(tasks, return_counts=True)
    weights = {"as_found": counts, "evenly": np.ones(len(found))}
    if drawn not in weights:
        raise ValueError(f'reward.tasks must be "as_found" or "evenly", found {drawn!r}')
    shares = weights[drawn] / weights[drawn].sum()
    return {TASKS[task]: float(share) for task, share in zip(found, shares)}


def _size(batch: Mapping[str, Array | jax.ShapeDtypeStruct | np.ndarray]) -> Size:
    """Image size of a batch of pairs."""
    return batch["winner"].shape[1:3]


def implied(preference: Preference, count: int) -> Iterator[Preference]:
    """The preference, and the implied (best, middle) and (middle, worst) pairs of its triplet."""
    yield preference
    for other in range(count):
        if other not in (preference.winner, preference.loser):
            yield dataclasses.replace(preference, loser=other)
            yield dataclasses.replace(preference, winner=other)


def maybe_mirrored(
    pair: dict[str, np.ndarray], rng: np.random.Generator, *, probability: float
) -> dict[str, np.ndarray]:
    """Mirrors both images of a pair with `probability`.

    Not for pairs about text alignment: a prompt may mention a side or letters.
    """
    asked = DIMENSIONS[TASKS[pair["task"]]][pair["dimension"]]
    if asked is Dimension.TEXT_ALIGNMENT or rng.random() >= probability:
        return pair
    return pair | {name: pair[name][:, ::-1] for name in ("winner", "loser")}


def measure_accuracy(
    answers: Mapping[Size, MeshFunction],
    state: TrainState,
    pairs: PairSource,
    batch_size: int,
    mesh: jax.sharding.Mesh,
) -> list[dict[str, object]]:
    """One row per task and dimension, with the fields of `JudgeAccuracy`."""
    cells = [pairs.cell(index) for index in range(len(pairs))]
    probabilities = np.empty((len(pairs), 2), np.float32)
    for part in same_size_parts(pairs.sizes, np.arange(len(pairs)), batch_size):
        elements = [pairs[index] for index in np.resize(part, batch_size)]
        batch = {name: np.stack([one[name] for one in elements]) for name in elements[0]}
        both = gather(answers[_size(batch)](state.params, replicate(batch, mesh)))
        probabilities[part] = (1.0 / (1.0 + np.exp(both.no - both.yes)))[: len(part)]
    winner_first, loser_first = probabilities.T
    table = judge_accuracy_table(
        [task for task, _ in cells],
        [dimension for _, dimension in cells],
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
