"""Which emoji play which part in composed clips: what travels, what is cut off at a side, and the things that move
along.
"""

from __future__ import annotations

TRAVELLERS = frozenset(
    (
        "1f3c3 1f6b6 1f6b4 1f3c7 1f3cd 1f3ce 1f404 1f405 1f406 1f408 1f40c 1f40e 1f410 1f411 1f413 1f415 1f416 1f418 "
        "1f422 "
        "1f42a 1f42b 1f682 1f68c 1f68e 1f690 1f691 1f692 1f693 1f695 1f697 1f699 1f69a 1f69b 1f69c 1f6fa 1f98c 1f98f "
        "1f993 1f994 1f995 1f996 1f998 1f999 1f9a3 26f9 1f681 1f41f 1f420 1f41d 1f988 1f6b5"
    ).split()
)
"""First code points of what runs, walks, drives, swims or flies; all these drawings look to the left."""
TRAVELLING_THINGS = frozenset(["1f9af", "1f9bc", "1f9bd"])
"""What a travelling person is joined with: white cane and wheelchairs."""

CUT_SIDES = {
    "1f688": "right",
    "1f69d": "right",
    "1f6a2": "right",
    "1f6f3": "right",
    "26f4": "right",
    "1f32c": "left",
    "1f9d7": "left",
}
"""First code points of drawings that end at one side in a straight cut."""

PROPS = {
    "26bd": ("a football", "roll"),
    "26be": ("a baseball", "roll"),
    "1f3d0": ("a volleyball", "roll"),
    "1f3b1": ("a billiard ball", "roll"),
    "1f6de": ("a wheel", "roll"),
    "1f6df": ("a ring buoy", "roll"),
    "1fa99": ("a coin", "roll"),
    "1f36a": ("a cookie", "roll"),
    "1f369": ("a doughnut", "roll"),
    "1f34a": ("a tangerine", "roll"),
    "1f965": ("a coconut", "roll"),
    "1f34e": ("a red apple", "hop"),
    "1f34f": ("a green apple", "hop"),
    "1f350": ("a pear", "hop"),
    "1f34d": ("a pineapple", "hop"),
    "1f353": ("a strawberry", "hop"),
    "1f345": ("a tomato", "hop"),
    "1f344": ("a mushroom", "hop"),
    "1f354": ("a hamburger", "hop"),
    "1f381": ("a wrapped present", "hop"),
    "1f3b2": ("a die", "hop"),
    "1f4e6": ("a package", "hop"),
    "1f3a9": ("a top hat", "hop"),
    "1f514": ("a bell", "hop"),
    "1fab4": ("a potted plant", "hop"),
    "1fad6": ("a teapot", "hop"),
    "1f45f": ("a shoe", "hop"),
    "1f388": ("a balloon", "float"),
    "1fa81": ("a kite", "float"),
    "1f341": ("a maple leaf", "float"),
    "1f342": ("a fallen leaf", "float"),
    "1fab6": ("a feather", "float"),
    "1f48e": ("a gem", "float"),
    "1f511": ("a key", "float"),
    "1f339": ("a rose", "float"),
    "1f33b": ("a sunflower", "float"),
    "1f4d5": ("a book", "float"),
    "1fa84": ("a magic wand", "float"),
    "1f319": ("a crescent moon", "float"),
    "1f3b8": ("a guitar", "float"),
}
"""Still pictures of things: what a caption calls each, and how it moves. None is a subject, so none can be held out."""
