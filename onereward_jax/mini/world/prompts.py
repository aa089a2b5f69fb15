"""All prompts of the mini world; the tokenizers are learned from them."""

from __future__ import annotations

from onereward_jax.mini.world.colour_words import NAMED_COLOURS
from onereward_jax.mini.world.sprites import NAMED
from onereward_jax.mini.world.words import WORDS
from onereward_jax.tasks import FIXED_PROMPTS, NEGATIVE_PROMPTS

OBJECT_TEMPLATES = ("{}", "{} in the picture", "a picture of {}")
WORD_TEMPLATES = ('the word "{}"', 'a sign that says "{}"')


def object_prompts(phrase: str) -> tuple[str, ...]:
    """Prompts for an object, from its phrase with article ("a red apple")."""
    return tuple(template.format(phrase) for template in OBJECT_TEMPLATES)


def word_prompts(word: str) -> tuple[str, ...]:
    """Prompts for a word."""
    return tuple(template.format(word) for template in WORD_TEMPLATES)


def colour_prompts(colour: str) -> tuple[str, ...]:
    """Prompts for surroundings of a colour ("dark blue")."""
    article = "an" if colour[0] in "aeiou" else "a"
    return f"{article} {colour} scene", f"{colour} surroundings"


def prompt_colour(prompt: str) -> str | None:
    """The colour ("dark blue") that a prompt of an extend scene names; None for other prompts."""
    return _COLOUR_OF_PROMPT.get(prompt)


_COLOUR_OF_PROMPT = {p: colour for colour in NAMED_COLOURS for p in colour_prompts(colour)}


def prompts() -> tuple[str, ...]:
    """Every prompt of the mini world, negative ones included, each once."""
    asked = [prompt for sprite in NAMED for prompt in object_prompts(sprite.phrase)]
    asked += [prompt for word in WORDS for prompt in word_prompts(word)]
    return (*asked, *_COLOUR_OF_PROMPT, *FIXED_PROMPTS.values(), *NEGATIVE_PROMPTS)
