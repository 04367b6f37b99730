"""Which clips are drawn next, and what becomes of them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.serving.world import FakeModel, until
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.sampling.request import PreparedPair, SamplingOptions
from tooncrafter_jax.serving.devices import Clip, Devices, Stopped, Task, next_batch

OPTIONS = SamplingOptions(frames=5, height=64, width=64)


def prepared(seed: int, size: int = 8) -> PreparedPair:
    return PreparedPair(np.zeros((2, size, size, 3), np.float32), None, "", seed, 10)


def waiting(*clips: str) -> list[Clip]:
    """Clips such as "a1x": of the client a, the first job, of the kind x."""
    task = Task(FakeModel(), OPTIONS, None, lambda: False)
    return [Clip(name[0], (name[2:],), prepared(0), int(name[1]), task) for name in clips]


@pytest.mark.parametrize(
    ("clips", "served", "most", "expected"),
    [
        ((), {}, 4, ()),
        (("a1x",), {}, 4, ("a1x",)),
        (("a1x", "a2x", "a3x"), {}, 4, ("a1x", "a2x")),  # a power of two
        (("a1x", "a2x", "a3x", "a4x", "a5x"), {}, 4, ("a1x", "a2x", "a3x", "a4x")),
        (("a1x", "a2x", "a3x", "b4x"), {}, 2, ("a1x", "b4x")),  # one a client in turn
        (("a1x", "a2x", "b4x"), {"a": 7}, 1, ("b4x",)),  # who was served last comes last
        (("a1x", "b4x"), {"a": 7, "b": 9}, 1, ("a1x",)),
        (("a1x", "b2y", "c3x", "d4x"), {}, 4, ("a1x", "c3x")),  # one kind
        (("a1x", "b2y", "c3x", "b4y"), {"a": 1, "c": 1}, 4, ("b2y", "b4y")),  # that of the client whose turn it is
        (("a3x", "a1y"), {}, 4, ("a1y",)),  # the first job first
    ],
)
def test_the_next_batch(clips: Sequence[str], served: dict[str, int], most: int, expected: Sequence[str]) -> None:
    found = next_batch(waiting(*clips), served, most)
    assert [f"{clip.client}{clip.order}{clip.kind[0]}" for clip in found] == list(expected)


def test_no_client_waits_for_another_s_whole_list() -> None:
    """One client's hundred clips, and then another's three."""
    clips, served, order = waiting(*["a1x"] * 100, "b2x", "b3x", "b4x"), {}, []
    for turn in range(6):
        (clip,) = next_batch(clips, served, 1)
        clips.remove(clip)
        served[clip.client] = turn
        order.append(clip.client)
    assert order == ["a", "b", "a", "b", "a", "b"]


class Drawing:
    """Devices and a model, and jobs in threads."""

    def __init__(self, most: int, model: FakeModel, gathering: float) -> None:
        self.devices, self.model = Devices(most, gathering), model
        self.pool = ThreadPoolExecutor(8)
        self.stopped: set[int] = set()
        self.devices.start()

    def draw(self, client: str, order: int, *seeds: int, size: int = 8, told: list[int] | None = None):
        pairs = [prepared(seed, size) for seed in seeds]
        listener = None if told is None else lambda progress: told.append(progress.done)
        stopped = lambda: order in self.stopped  # noqa: E731
        return self.pool.submit(self.devices.sample, client, order, self.model, pairs, OPTIONS, listener, stopped)

    def close(self) -> None:
        self.devices.stop()
        self.pool.shutdown()


@pytest.fixture
def drawing():
    made: list[Drawing] = []

    def make(most: int, model: FakeModel | None = None, gathering: float = 0.05) -> Drawing:
        made.append(Drawing(most, model or FakeModel(), gathering))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_jobs_of_one_size_share_a_batch(drawing) -> None:
    told: list[int] = []
    world = drawing(4, gathering=9.0)
    first, second = world.draw("a", 1, 100, 200, told=told), world.draw("b", 2, 300, 400)
    assert [video[0, 0, 0, 0] for video in first.result(9)] == pytest.approx([0.1, 0.2])
    assert [video[0, 0, 0, 0] for video in second.result(9)] == pytest.approx([0.3, 0.4])
    assert list(map(sorted, world.model.batches)) == [[100, 200, 300, 400]]
    assert told == [1, 2, 3, 4]


def test_clips_of_two_sizes_do_not(drawing) -> None:
    world = drawing(4)
    first, second = world.draw("a", 1, 100), world.draw("b", 2, 200, size=16)
    assert first.result(9).shape[2] == 8 and second.result(9).shape[2] == 16
    assert sorted(world.model.batches) == [[100], [200]]


def test_a_pair_that_fills_up_a_batch_is_drawn_once(drawing) -> None:
    world, one = drawing(4), prepared(100)
    videos = world.devices.sample("a", 1, world.model, [one] * 3, OPTIONS, None, lambda: False)
    assert len(videos) == 3 and world.model.batches == [[100]]


def test_a_failing_clip_costs_no_other(drawing) -> None:
    def refuse(seeds: Sequence[int]) -> None:
        if 200 in seeds:
            raise UserError("no such seed")

    world = drawing(2, FakeModel(before=refuse), gathering=9.0)
    first, second = world.draw("a", 1, 100), world.draw("b", 2, 200)
    assert first.result(9).shape == (1, 5, 8, 8, 3)
    with pytest.raises(UserError, match="no such seed"):
        second.result(9)


def test_what_is_cancelled_ends_between_chunks_and_the_rest_of_its_batch_goes_on(drawing) -> None:
    begun = threading.Event()
    world = drawing(2, FakeModel(seconds=0.05, chunks=20, before=lambda seeds: begun.set()), gathering=0.5)
    first, second = world.draw("a", 1, 100), world.draw("b", 2, 200)
    assert begun.wait(9)
    world.stopped.add(1)
    world.devices.wake()
    with pytest.raises(Stopped):
        first.result(9)
    assert second.result(9).shape[0] == 1
    begun.clear()
    third = world.draw("a", 3, 300)
    assert begun.wait(9)
    world.stopped.add(3)
    world.devices.wake()
    with pytest.raises(Stopped):
        third.result(9)
    assert world.draw("a", 4, 400).result(9).shape[0] == 1  # the thread is free again


def test_what_waits_when_the_devices_end_is_told(drawing) -> None:
    world = drawing(1, FakeModel(seconds=0.05))
    jobs = [world.draw("a", number, number) for number in range(1, 4)]
    until(lambda: world.model.batches)
    world.devices.stop()
    for job in jobs:
        with pytest.raises(Stopped):
            job.result(9)


def test_news_that_nobody_can_be_told_do_not_end_the_thread() -> None:
    def fail(*values: object) -> None:
        raise BrokenPipeError

    devices = Devices(1, chores=[lambda tell: None])
    devices.on_ready = devices.on_batch = fail
    devices.start()
    until(lambda: not devices.has_chores)
    for seed in range(2):
        devices.sample("a", 1, FakeModel(), [prepared(seed)], OPTIONS, None, lambda: False)
    assert devices.works
    devices.stop()
    assert not devices.works


def test_clips_come_before_the_chores_that_are_left() -> None:
    done: list[str] = []
    asked: list[bool] = []
    model = FakeModel(before=lambda seeds: done.append("a clip"))

    def stopped() -> bool:
        asked.append(True)
        return False

    def first(tell: object) -> None:
        clips.append(pool.submit(devices.sample, "a", 1, model, [prepared(1)], OPTIONS, None, stopped))
        until(lambda: (devices.wake(), asked)[1])  # it waits
        assert devices.has_chores
        done.append("first")

    devices, pool, clips = Devices(1, chores=[first, lambda tell: done.append("second")]), ThreadPoolExecutor(1), []
    devices.on_ready = lambda: done.append("ready")
    devices.start()
    until(lambda: not devices.has_chores)
    assert clips[0].result(9).shape[0] == 1
    devices.stop()
    assert done == ["first", "a clip", "second", "ready"]
