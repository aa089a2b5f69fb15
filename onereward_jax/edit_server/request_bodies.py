"""The bodies of requests and answers: their fields, ranges and meanings, also for the API page.

Pictures are base64 inside JSON, so that a request is one object whose every field has a name.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from onereward_jax.inference.seeds import LEAST, MOST
from onereward_jax.tasks import COMMAND_TASKS

LONGEST_PROMPT = 4000
"""Characters; the models read 512 tokens at most."""

WIDEST_FEATHER = 512
WIDEST_CONTEXT = 100.0
GREATEST_SCALE = 100.0


def decoded(value: object) -> object:
    """Bytes of base64; a data URL, as a browser gives it, is base64 too. Raises ValueError."""
    if not isinstance(value, str):
        return value
    start, comma, rest = value[:100].partition(",")
    if comma and start.startswith("data:"):
        value = value[len(start) + 1 :]
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error:
        raise ValueError("base64 of a picture's file expected") from None


Picture = Annotated[
    bytes,
    BeforeValidator(decoded),
    WithJsonSchema({"type": "string", "contentEncoding": "base64", "title": "a picture's file"}),
]
Text = Annotated[str, Field(max_length=LONGEST_PROMPT)]
Scale = Annotated[float, Field(ge=0.0, le=GREATEST_SCALE, allow_inf_nan=False)]
TaskName = Literal[COMMAND_TASKS]


class EditBody(BaseModel):
    """An edit. What is left out is as in the command `onereward-edit`, or as the server is set."""

    model_config = ConfigDict(extra="forbid", strict=True, title="Edit")

    image: Picture = Field(description="the source: PNG, JPEG, WebP, AVIF, TIFF, BMP, GIF")
    mask: Picture | None = Field(None, description="white: edit here; of the image's shape")
    pad: str | None = Field(
        None, max_length=60, description="to extend: left,top,right,bottom pixels, without a mask"
    )
    invert_mask: bool = Field(False, description="edit where the mask is black")
    task: TaskName = Field(
        "fill", description="what to do; remove, and extend, have a prompt of their own"
    )
    prompt: Text = Field("", description="what is to be seen in the masked area")
    negative_prompt: Text | None = Field(None, description="what is not to be seen")
    seed: int = Field(0, ge=LEAST, le=MOST, description="of the noise: same seed, same edit")
    steps: int | None = Field(None, ge=1, lt=2**31, description="sampling steps")
    true_cfg_scale: Scale | None = Field(None, description="how closely to follow; 1 for none")
    guidance_scale: Scale | None = Field(None, description="embedded guidance of FLUX")
    strength: float | None = Field(
        None, gt=0.0, le=1.0, description="below 1: start from the noised source"
    )
    crop: bool | None = Field(
        None,
        description="edit a window around the mask at the model's resolution, and keep the rest; "
        "by default for pictures that are larger than the model's",
    )
    context: float | None = Field(
        None, ge=1.0, le=WIDEST_CONTEXT, description="side of the window over that of the mask"
    )
    components: Literal["together", "each"] | None = Field(
        None, description="separate areas of the mask: one window for all, or one each"
    )
    paste_back: bool | None = Field(None, description="keep the source outside the mask")
    feather: int | None = Field(
        None, ge=0, le=WIDEST_FEATHER, description="width of the seam of what is kept, pixels"
    )


class JudgementBody(BaseModel):
    """A question to the judge: which of two edits of one source is better?"""

    model_config = ConfigDict(extra="forbid", strict=True, title="Question")

    a: str = Field(description="the number of a finished edit, or a picture's file in base64")
    b: str = Field(description="the other; of the same size")
    task: TaskName | None = Field(None, description="task of the edits; by default that of a")
    prompt: Text | None = Field(None, description="prompt of the edits; by default that of a")
    mask: Picture | None = Field(
        None, description="white where they were edited; by default those of a and b"
    )
    source: Picture | None = Field(
        None, description="before the edit, for a judge that looks at it; by default that of a"
    )


class LoginBody(BaseModel):
    """The token of the link that the server prints."""

    token: str = Field(max_length=400)


class Answer(BaseModel):
    """What the judge says in one dimension."""

    dimension: str
    a_first: float = Field(description='P("Yes") to "is a better than b?"')
    b_first: float = Field(description='P("Yes") to "is b better than a?"')
    a_is_better: float = Field(description="probability, by the mean of both orders")


class JobState(BaseModel):
    """How far a request is."""

    id: str
    kind: Literal["edit", "judgement"]
    state: Literal["waiting", "running", "done", "failed", "cancelled"]
    place: int | None = Field(None, description="requests before it, while it waits")
    step: int = Field(description="calls of the model so far; 0 while it is compiled")
    steps: int
    seconds: float = Field(description="since it began, or since it was sent while it waits")
    notes: list[str] = Field(description="what to know about the pictures")
    error: str | None = None
    result: str | None = Field(None, description="path of the edited picture, a PNG file")
    answers: list[Answer] | None = Field(None, description="of a judgement")


class Wrong(BaseModel):
    """Why a request was refused, in a sentence that names the field."""

    error: str


class Ready(BaseModel):
    """Whether requests are answered."""

    ready: bool
    waiting: int = Field(description="requests in the queue")


class Defaults(BaseModel):
    """What is taken where an edit says nothing."""

    steps: int
    true_cfg_scale: float
    guidance_scale: float
    negative_prompt: str
    strength: float
    feather: int
    paste_back: bool


class About(BaseModel):
    """What this server can do."""

    version: str
    editor: str
    judge: str | None
    tasks: dict[str, list[str]] = Field(description="task -> dimensions that the judge knows")
    prompts: dict[str, str] = Field(description="task -> the prompt that it needs no other for")
    resolution: int = Field(description="side of the model's pictures, pixels")
    whole_pixels: int = Field(description="larger pictures are edited in a window")
    defaults: Defaults
    limits: dict[str, int]
