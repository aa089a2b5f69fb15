"""Scenes of the mini world: photographs, sprites and words composed with known ground truth."""

from onereward_jax.mini.world.colour_words import NAMED_COLOURS, describe_colour
from onereward_jax.mini.world.make_scene import make_scene
from onereward_jax.mini.world.photos import PHOTOS
from onereward_jax.mini.world.prompts import prompt_colour, prompts
from onereward_jax.mini.world.scene_record import Scene
from onereward_jax.mini.world.sprites import NAMED, TEST_ONLY, TRAIN_ONLY, named_pictures
from onereward_jax.mini.world.words import WORDS

__all__ = [
    "NAMED",
    "NAMED_COLOURS",
    "PHOTOS",
    "TEST_ONLY",
    "TRAIN_ONLY",
    "WORDS",
    "Scene",
    "describe_colour",
    "make_scene",
    "named_pictures",
    "prompt_colour",
    "prompts",
]
