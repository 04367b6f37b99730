"""Numbers by frame: their mean, their mean by frame, and what is left out."""

from __future__ import annotations

import numpy as np

from tests.evaluation.metrics.clips import batch, clips
from tooncrafter_jax.evaluation.metrics.frame_metric import FrameMetric, mean_of_present
from tooncrafter_jax.evaluation.metrics.metric import ClipBatch


class Brightness(FrameMetric):
    """Not one that is used."""

    name, title, better = "brightness", "Brightness", "higher"

    def of_frames(self, batch: ClipBatch) -> np.ndarray:
        """Mean value; black frames have none."""
        means = batch.videos.mean((2, 3, 4))
        return np.where(means == 0, np.nan, means)


def test_frames_without_a_number_are_left_out() -> None:
    videos = np.zeros((2, 3, 4, 4, 3), np.uint8)
    videos[0, :2], videos[1, 1] = 30, 90
    rows = Brightness().measure(batch(videos, videos))
    assert rows["brightness"].dtype == np.float32 and rows["brightness"].shape == (2, 3)
    assert Brightness().summarise(rows) == 50  # of 30, 30 and 90
    np.testing.assert_array_equal(Brightness().by_frame(rows), [30, 60, np.nan])
    assert np.isnan(Brightness().summarise({"brightness": np.full((2, 3), np.nan, np.float32)}))


def test_the_first_entry_may_belong_to_a_later_frame() -> None:
    class Later(Brightness):
        first_frame = 1

    metric = Later()
    np.testing.assert_array_equal(metric.by_frame({"brightness": np.array([[1.0, 2.0], [3.0, 4.0]])}), [np.nan, 2, 3])


def test_many_small_numbers_are_added_in_float64() -> None:
    values = np.full(3_000_000, 0.1, np.float32)
    assert abs(mean_of_present(values) - np.float64(np.float32(0.1))) < 1e-12


def test_streaming_gives_the_rows_of_all_at_once() -> None:
    videos = clips(4)
    parts = [Brightness().measure(batch(v, v))["brightness"] for v in (videos[:3], videos[3:])]
    np.testing.assert_array_equal(np.concatenate(parts), Brightness().measure(batch(videos, videos))["brightness"])
