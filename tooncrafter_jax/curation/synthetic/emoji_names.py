"""What an emoji shows, read off its code points: a phrase for captions, and the subject by which sets are split.

Files of the Fluent emoji are named by code points, e.g. `1f3c3-1f3ff-200d-2640-fe0f`: runner, dark skin, joined with
the sign for woman. Characters are named by Unicode; where that name misleads (WHITE and BLACK there mean outlined and
filled) or where several characters are joined into one picture, this file has a name.
"""

from __future__ import annotations

import dataclasses
import re
import unicodedata

_JOINER, _VARIATION = 0x200D, 0xFE0F
_TONES = {0x1F3FB: "light", 0x1F3FC: "medium-light", 0x1F3FD: "medium", 0x1F3FE: "medium-dark", 0x1F3FF: "dark"}
_GENDER_SIGNS = {0x2640: "woman", 0x2642: "man"}
_ADULTS = {0x1F468: "man", 0x1F469: "woman", 0x1F9D1: "person"}
_CHILDREN = {0x1F466: "boy", 0x1F467: "girl", 0x1F9D2: "child"}
_HEART, _KISS, _HANDSHAKE = 0x2764, 0x1F48B, 0x1F91D

_PERSON_WITH = {
    0x1F33E: "farmer",
    0x1F373: "cook",
    0x1F37C: "person feeding a baby",
    0x1F384: "Christmas person",
    0x1F393: "graduate",
    0x1F3A4: "singer",
    0x1F3A8: "painter",
    0x1F3EB: "teacher",
    0x1F3ED: "factory worker",
    0x1F4BB: "person at a computer",
    0x1F4BC: "office worker",
    0x1F527: "mechanic",
    0x1F52C: "scientist",
    0x1F680: "astronaut",
    0x1F692: "firefighter",
    0x1F9AF: "person with a white cane",
    0x1F9B0: "person, red hair",
    0x1F9B1: "person, curly hair",
    0x1F9B2: "person, bald",
    0x1F9B3: "person, white hair",
    0x1F9BC: "person in a motorised wheelchair",
    0x1F9BD: "person in a wheelchair",
    0x2695: "doctor",
    0x2696: "judge",
    0x2708: "pilot",
}
"""What an adult joined with a thing is."""

_SEQUENCES: dict[tuple[int, ...], str] = {
    (0x1F408, 0x2B1B): "black cat",
    (0x1F415, 0x1F9BA): "service dog",
    (0x1F43B, 0x2744): "polar bear",
    (0x1F3F4, 0x2620): "pirate flag",
    (0x1F62E, 0x1F4A8): "face exhaling",
    (0x1F635, 0x1F4AB): "face with spiral eyes",
    (0x1F636, 0x1F32B): "face in clouds",
    (0x2764, 0x1F525): "heart on fire",
    (0x2764, 0x1FA79): "mending heart",
}
_NAMES = {
    0x1F324: "sun with small cloud",
    0x1F325: "sun behind cloud",
    0x1F326: "sun behind cloud with rain",
    0x1F446: "hand pointing up",
    0x1F447: "hand pointing down",
    0x1F448: "hand pointing left",
    0x1F449: "hand pointing right",
    0x1F46A: "family",
    0x1F46F: "people with bunny ears",
    0x1F470: "person with veil",
    0x1F473: "person with turban",
    0x1F48F: "kissing couple",
    0x1F491: "couple with heart",
    0x1F595: "hand with middle finger extended",
    0x1F645: "person gesturing no",
    0x1F646: "person gesturing OK",
    0x1F6CC: "person in bed",
    0x1F935: "person in tuxedo",
    0x1F9D1: "person",
    0x1F9D3: "older person",
    0x2600: "sun with rays",
    0x261D: "index finger pointing up",
    0x2639: "frowning face",
    0x263A: "smiling face",
    0x2763: "heart exclamation mark",
    0x2764: "red heart",
    0x26C4: "snowman",
    0x2B50: "star",
}
"""Where Unicode's name would be a wrong caption."""

_KIN = {
    "person": {"man", "woman", "boy", "girl", "child", "older man", "older woman", "older person"}
    | {"person, red hair", "person, curly hair", "person, bald", "person, white hair"}
    | {"person with blond hair", "bearded person"},
    "Christmas person": {"father christmas", "mother christmas"},
    "prince": {"princess"},
    "people holding hands": {"man and woman holding hands", "two men holding hands", "two women holding hands"},
    "heart": {
        f"{colour} heart"
        for colour in ("red", "orange", "yellow", "green", "blue", "purple", "brown", "black", "white")
    },
    "cat": {"black cat"},
    "bear face": {"polar bear"},
    "fisted hand": {"left-facing fist", "right-facing fist"},
    "pointing hand": {f"hand pointing {way}" for way in ("up", "down", "left", "right")},
    "half moon with face": {"first quarter moon with face", "last quarter moon with face"},
    "umbrella": {"umbrella with rain drops"},
    "hourglass": {"hourglass with flowing sand"},
}
"""Subjects that are one drawing recoloured, mirrored or with other hair, in the same motion (their outlines were
compared).
"""
_SUBJECT_OF_KIN = {name: subject for subject, names in _KIN.items() for name in names}


@dataclasses.dataclass(frozen=True)
class EmojiName:
    """What an emoji shows.

    Attributes:
      subject: name without skin tone and gender, the same for all drawings that are so alike that a test set must not
        hold one while the training set holds another.
      phrase: what a caption says, e.g. "runner, woman, dark skin".
    """

    subject: str
    phrase: str

    @property
    def slug(self) -> str:
        """The subject in lower-case letters, digits and hyphens."""
        return re.sub(r"[^a-z0-9]+", "-", self.subject.lower()).strip("-")


def code_points(name: str) -> tuple[int, ...]:
    """The code points that a file's name (without extension) stands for, e.g. "1f3c3-1f3ff".

    Raises:
      ValueError: it stands for none.
    """
    points = tuple(int(digits, 16) for digits in re.split("[-_]", name))
    for point in points:
        chr(point)
    return points


def name_emoji(points: tuple[int, ...]) -> EmojiName:
    """The name of an emoji of these code points."""
    tones = [_TONES[point] for point in points if point in _TONES]
    base = tuple(point for point in points if point not in _TONES and point not in (_JOINER, _VARIATION))
    name, gender = _name_and_gender(base)
    details = [name]
    if gender:
        details.append(gender)
    if tones:
        details.append(" and ".join(dict.fromkeys(tones)) + " skin")
    return EmojiName(_subject(name), ", ".join(details))


def _name_and_gender(base: tuple[int, ...]) -> tuple[str, str]:
    signs = [_GENDER_SIGNS[point] for point in base[1:] if point in _GENDER_SIGNS]
    base = base[:1] + tuple(point for point in base[1:] if point not in _GENDER_SIGNS)
    people = [(_ADULTS | _CHILDREN)[point] for point in base if point in _ADULTS or point in _CHILDREN]
    things = tuple(point for point in base if point not in _ADULTS and point not in _CHILDREN)
    if not people or len(base) == 1:
        return _name_of_things(base), signs[0] if signs else ""
    gender = " and ".join(people) if people != ["person"] * len(people) else ""
    if things == (_HEART, _KISS):
        return _NAMES[0x1F48F], gender
    if things == (_HEART,):
        return _NAMES[0x1F491], gender
    if things == (_HANDSHAKE,):
        return "people holding hands", gender
    if not things:
        return "family", ", ".join(people)
    if len(people) == 1 and len(things) == 1 and things[0] in _PERSON_WITH:
        return _PERSON_WITH[things[0]], gender
    return " with ".join([people[0], *map(_name_of_one, things)]), ""


def _name_of_things(base: tuple[int, ...]) -> str:
    return _SEQUENCES.get(base) or " and ".join(map(_name_of_one, base))


def _name_of_one(point: int) -> str:
    name = _NAMES.get(point) or unicodedata.name(chr(point), f"emoji {point:x}").lower()
    return name.replace("clock face ", "clock face at ").replace("oclock", "o'clock")


def _subject(name: str) -> str:
    if name.startswith("clock face"):
        return "clock face"
    return _SUBJECT_OF_KIN.get(name, name)
