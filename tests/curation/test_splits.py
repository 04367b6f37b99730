"""Splits: sizes, one side for every source, and what adding a source changes."""

import random

import pytest

from tooncrafter_jax.curation.splits import SplitRule, assign
from tooncrafter_jax.errors import UserError


def _sources(count: int, seed: int = 0) -> dict[str, int]:
    draw = random.Random(seed)
    return {f"film {i}": draw.randint(1, 60) for i in range(count)}


def _sizes(assignment, clips_of):
    sizes = dict.fromkeys(assignment.split_of.values(), 0)
    for source, split in assignment.split_of.items():
        sizes[split] += clips_of[source] - assignment.surplus.get(source, 0)
    return sizes


def test_the_usual_share():
    clips_of = _sources(600)
    sizes = _sizes(assign(SplitRule(), clips_of), clips_of)
    total = sum(clips_of.values())
    assert sum(sizes.values()) == total
    assert 0.003 * total < sizes["test"] <= round(0.004 * total)


@pytest.mark.parametrize("seed", range(5))
def test_a_count_is_met_exactly_and_costs_one_source_at_most(seed):
    clips_of = _sources(40, seed)
    assignment = assign(SplitRule(test=200, validation=77), clips_of)
    sizes = _sizes(assignment, clips_of)
    assert (sizes["test"], sizes["validation"]) == (200, 77)
    assert set(assignment.split_of) == set(clips_of)
    assert len(assignment.surplus) <= 2 and all(0 < n < clips_of[s] for s, n in assignment.surplus.items())


def test_it_depends_on_names_and_counts_alone():
    clips_of = _sources(50)
    shuffled = dict(random.Random(1).sample(list(clips_of.items()), len(clips_of)))
    assert assign(SplitRule(0.1), shuffled).split_of == assign(SplitRule(0.1), clips_of).split_of


def test_a_source_that_is_added_moves_few_others():
    rule = SplitRule(0.1)
    moved = 0
    for extra in range(20):
        clips_of = _sources(60, extra)
        before = assign(rule, clips_of).split_of
        after = assign(rule, clips_of | {f"new {extra}": 10}).split_of
        moved += sum(after[source] != split for source, split in before.items())
    assert moved / 20 < 2  # of 60


def test_few_sources_hold_out_the_smallest_and_one_source_holds_out_nothing():
    assert assign(SplitRule(), {"a": 500, "b": 20, "c": 90}).split_of == {"a": "train", "b": "test", "c": "train"}
    assert assign(SplitRule(), {"a": 500}).split_of == {"a": "train"}
    assert assign(SplitRule(), {}).split_of == {}
    assert "test" not in assign(SplitRule(test=0), _sources(9)).split_of.values()


@pytest.mark.parametrize("sizes", [{"test": 100}, {"test": 60, "validation": 50}])
def test_more_than_there_is_cannot_be_held_out(sizes):
    with pytest.raises(UserError, match="cannot fill it and leave any for training"):
        assign(SplitRule(**sizes), {"a": 50, "b": 50})


@pytest.mark.parametrize(
    "sizes", [{"test": 1.5}, {"test": -0.1}, {"test": 0.5, "validation": 0.5}, {"test": float("nan")}]
)
def test_impossible_sizes_are_reported(sizes):
    with pytest.raises(UserError, match="split"):
        SplitRule(**sizes)
