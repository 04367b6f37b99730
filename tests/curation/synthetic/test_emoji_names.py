"""Names of emoji: what captions say, and which drawings are one subject."""

import pytest

from tooncrafter_jax.curation.synthetic.emoji_names import code_points, name_emoji


def _name(text):
    return name_emoji(code_points(text))


@pytest.mark.parametrize(
    ("file", "phrase", "slug"),
    [
        ("1f3c3-1f3ff", "runner, dark skin", "runner"),
        ("1f3c3-1f3fb-200d-2640-fe0f", "runner, woman, light skin", "runner"),
        ("1f468-1f3fd-200d-1f33e", "farmer, man, medium skin", "farmer"),
        ("1f9d1-200d-1f33e", "farmer", "farmer"),
        ("1f469-200d-2708-fe0f", "pilot, woman", "pilot"),
        ("1f469-1f3fe-200d-1f9b0", "person, red hair, woman, medium-dark skin", "person"),
        ("1f467", "girl", "person"),
        (
            "1f469-1f3fb-200d-2764-fe0f-200d-1f468-1f3ff",
            "couple with heart, woman and man, light and dark skin",
            "couple-with-heart",
        ),
        ("1f48f-1f3fb", "kissing couple, light skin", "kissing-couple"),
        ("1f469-200d-2764-fe0f-200d-1f48b-200d-1f469", "kissing couple, woman and woman", "kissing-couple"),
        ("1f468-200d-1f469-200d-1f466", "family, man, woman, boy", "family"),
        ("1f9d1-200d-1f91d-200d-1f9d1", "people holding hands", "people-holding-hands"),
        ("1f46d-1f3ff", "two women holding hands, dark skin", "people-holding-hands"),
        ("1f49a", "green heart", "heart"),
        ("2764-fe0f", "red heart", "heart"),
        ("2764-fe0f-200d-1f525", "heart on fire", "heart-on-fire"),
        ("1f565", "clock face at ten-thirty", "clock-face"),
        ("1f408-200d-2b1b", "black cat", "cat"),
        ("1f636-200d-1f32b-fe0f", "face in clouds", "face-in-clouds"),
        ("2600-fe0f", "sun with rays", "sun-with-rays"),
        ("1f9dc-1f3fc-200d-2642-fe0f", "merperson, man, medium-light skin", "merperson"),
    ],
)
def test_phrase_and_subject(file, phrase, slug):
    assert (_name(file).phrase, _name(file).slug) == (phrase, slug)


def test_different_subjects_stay_different():
    files = [
        "1f3c3",
        "1f6b6",
        "1f408",
        "1f431",
        "1f49e",
        "1f493",
        "1f600",
        "1f603",
        "2764-fe0f-200d-1fa79",
        "1f9d1-200d-1f33e",
    ]
    assert len({_name(file).slug for file in files}) == len(files)


def test_a_character_without_a_name_has_one():
    assert _name("10fffd").slug == "emoji-10fffd"


@pytest.mark.parametrize("file", ["readme", "", "1f3c3--1f3fb", "110000"])
def test_what_is_no_code_point(file):
    with pytest.raises(ValueError, match="code point|invalid literal|not in range"):
        code_points(file)
