"""Model cards: README.md with the hub's metadata header and measured results."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from onereward_jax.reward.judge_loader import judge_template, judge_view
from onereward_jax.reward.judge_view import LEAST
from onereward_jax.stages.export.card_origin import Origin
from onereward_jax.stages.export.diffusers_call import Call
from onereward_jax.tasks import Dimension, Task

TEMPLATES = Path(__file__).parent / "card_templates"


@dataclasses.dataclass(frozen=True)
class DataFacts:
    """The training data of a run.

    Attributes:
      triplets: description of the images.
      image_size: height and width in pixels.
      counts: split -> task -> number of triplets.
      preferences: description of the annotators.
    """

    triplets: str
    image_size: int
    counts: Mapping[str, Mapping[Task, int]]
    preferences: str


def editor_card(
    origin: Origin,
    call: Call,
    data: DataFacts,
    settings: Mapping[str, Any],
    summary: Mapping[str, Any] | None,
    *,
    weights: str,
    alone: bool = False,
    adapter: str = "",
    transformer: str = "",
) -> ModelCard:
    """The card of a trained editor.

    Args:
      origin: base editor and licence.
      call: how to use it with diffusers.
      data: training data.
      settings: config sections to show.
      summary: the report's summary.json; None if the run was not evaluated.
      weights: "policy" or "ema".
      alone: the folder has only the transformer.
      adapter: the folder has only this file, a LoRA.
      transformer: name of what replaced the base editor's own transformer; "": nothing.
    """
    header = origin.card_data(
        library_name="diffusers",
        pipeline_tag="image-to-image",
        tags=["onereward", "inpainting", "outpainting", "object-removal", "flux", "jax"],
    )
    gsb = {
        name: {Task(task): row for task, row in table.items()}
        for name, table in (summary or {}).get("gsb", {}).items()
    }
    return _fill(
        "editor.md",
        header,
        start=origin.start,
        call=call,
        comfyui=settings["export"].get("comfyui"),
        data=data,
        settings=settings,
        gsb=gsb,
        weights={"policy": "the policy", "ema": "the policy's moving average"}[weights],
        alone=alone,
        adapter=adapter,
        transformer=transformer,
    )


def judge_card(
    origin: Origin,
    data: DataFacts,
    settings: Mapping[str, Any],
    accuracy: Sequence[Mapping[str, Any]],
    folder: Path,
) -> ModelCard:
    """The card of a trained judge.

    Args:
      origin: base model and licence.
      data: training data.
      settings: config sections to show.
      accuracy: rows of the stage `reward`'s accuracy.json.
      folder: folder of the judge; the card lists its files.
    """
    header = origin.card_data(
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        tags=["onereward", "reward-model", "preference", "qwen2_5_vl", "jax"],
    )
    rows = [
        {**row, "task": Task(row["task"]), "dimension": Dimension(row["dimension"])}
        for row in accuracy
    ]
    template = judge_template(folder)
    return _fill(
        "judge.md",
        header,
        start=origin.start,
        dtype=settings["export"]["dtype"],
        data=data,
        settings={"reward": settings["reward"]},
        adapter=settings["reward"]["lora"]["rank"] > 0,
        rows=rows,
        template_version=template.version,
        is_scalar=template.pictures == 1,
        view=judge_view(folder),
        least=LEAST,
        files=sorted(path.name for path in folder.iterdir()),
    )


def _fill(template: str, header: ModelCardData, **values: Any) -> ModelCard:
    text = (TEMPLATES / template).read_text(encoding="utf-8")
    settings = json.dumps(values.pop("settings"), indent=2)
    return ModelCard.from_template(header, template_str=text, settings=settings, **values)
