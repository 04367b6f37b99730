"""Results made elsewhere are read as they are, and what does not fit is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.evaluation.rivals.scenes import psnr, request, sliding_square
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.evaluation.rivals.folder import Folder
from tooncrafter_jax.io import write_gif, write_mp4, write_png_sequence, write_webp

VIDEO = sliding_square()


def written(folder: Path, form: str, clip: str = "intro/000120-000168", video: np.ndarray = VIDEO) -> Path:
    path = folder / f"{clip}.{form}"
    if form == "mp4":
        write_mp4(path, video)
    elif form == "gif":
        write_gif(path, video)
    elif form == "webp":
        write_webp(path, video)
    else:
        path = folder / clip
        write_png_sequence(path, video)
    return path


@pytest.mark.parametrize(("form", "least"), [("mp4", 25), ("gif", 20), ("webp", 25), ("folder", 99)])
def test_every_form_gives_its_frames(tmp_path: Path, form: str, least: float) -> None:
    """Colour at half the resolution in an mp4 and a WebP, 256 colours in a GIF; a shift by one frame is below 21 dB
    around the square.
    """
    written(tmp_path / "film", form)
    rival = Folder(tmp_path / "film")
    assert (rival.name, rival.title) == ("film", "film")
    wanted = request(VIDEO, "intro/000120-000168")
    rival.require([wanted.id])
    video = rival([wanted])[0]
    assert video.shape == VIDEO.shape
    errors = (
        [psnr(video[:, 30:62, 30:80], np.roll(VIDEO, shift, axis=0)[:, 30:62, 30:80]) for shift in (-1, 0, 1)]
        if (least < 99)
        else [0.0, 100.0 if np.array_equal(video, VIDEO) else 0.0, 0.0]
    )
    assert np.argmax(errors) == 1 and errors[1] > least, errors


def test_clips_that_are_made_anew_are_others(tmp_path: Path) -> None:
    """Or an evaluation would go on with what it measured of the former ones."""
    written(tmp_path, "folder", "a")
    before = Folder(tmp_path).settings()
    assert Folder(tmp_path).settings() == before
    shutil.rmtree(tmp_path / "a")
    written(tmp_path, "folder", "a", VIDEO[:, ::-1])
    assert Folder(tmp_path).settings() != before


def test_an_mp4_is_neither_darkened_nor_tinted(tmp_path: Path) -> None:
    written(tmp_path, "mp4", "a")
    error = Folder(tmp_path)([request(VIDEO, "a")])[0].astype(np.float64) - VIDEO
    assert np.abs(error.mean((0, 1, 2))).max() < 0.5


def test_a_gif_whose_drawings_are_held(tmp_path: Path) -> None:
    """Equal neighbours are stored as one longer frame, and count as many."""
    drawings = [0, 0, 0, 3, 4, 5, 5, 7, 8, 9, 10, 11, 11, 13, 14, 15]
    write_gif(tmp_path / "a.gif", VIDEO[drawings])
    video = Folder(tmp_path)([request(VIDEO, "a")])[0]
    near = [int(np.argmax([psnr(frame, true) for true in VIDEO])) for frame in video]
    assert near == drawings


def test_pictures_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "a").mkdir()
    for index in range(16):
        Image.fromarray(VIDEO[index]).save(tmp_path / "a" / f"out-{index}.png")
    (tmp_path / "a" / "._out-3.png").write_bytes(b"what macOS leaves beside a file")
    np.testing.assert_array_equal(Folder(tmp_path)([request(VIDEO, "a")])[0], VIDEO)


def test_clips_are_in_the_order_of_the_requests(tmp_path: Path) -> None:
    for name, video in (("a", VIDEO), ("b", VIDEO[::-1])):
        written(tmp_path, "folder", name, video)
    videos = Folder(tmp_path)([request(VIDEO[::-1], "b"), request(VIDEO, "a")])
    np.testing.assert_array_equal(videos, np.stack([VIDEO[::-1], VIDEO]))


@pytest.mark.parametrize("form", ["mp4", "webp", "folder"])
class TestWhatDoesNotFit:
    def test_too_few_frames(self, tmp_path: Path, form: str) -> None:
        path = written(tmp_path, form, "a", VIDEO[1:-1])
        with pytest.raises(UserError, match=rf"'{path}' has 14 frames, but 16 are compared, the two end frames among"):
            Folder(tmp_path)([request(VIDEO, "a")])

    def test_too_many_frames(self, tmp_path: Path, form: str) -> None:
        path = written(tmp_path, form, "a", np.concatenate([VIDEO, VIDEO]))
        with pytest.raises(UserError, match=rf"'{path}' has more than 16 frames"):
            Folder(tmp_path)([request(VIDEO, "a")])

    def test_another_size(self, tmp_path: Path, form: str) -> None:
        path = written(tmp_path, form, "a", VIDEO.repeat(2, axis=1).repeat(2, axis=2))
        with pytest.raises(UserError, match=rf"'{path}' is 256 x 192 pixels, but the clip is 128 x 96: .* nothing is"):
            Folder(tmp_path)([request(VIDEO, "a")])


def test_missing_clips_are_counted_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"never read")
    (tmp_path / "empty").mkdir()
    rival = Folder(tmp_path)
    with pytest.raises(UserError, match=r"lacks 2 of 3 clips, such as 'b': put b.mp4 there, or a folder b of pictures"):
        rival.require(["a", "b", "empty"])
    with pytest.raises(UserError, match=r"lacks clip 'b': put b.mp4 there"):
        rival([request(VIDEO, "b")])


def test_a_clip_that_is_there_twice(tmp_path: Path) -> None:
    for form in ("mp4", "webp"):
        written(tmp_path, form, "a")
    with pytest.raises(UserError, match=r"clip 'a' is there twice, as '.*a.mp4' and '.*a.webp': remove one"):
        Folder(tmp_path)([request(VIDEO, "a")])


def test_a_damaged_video_is_named(tmp_path: Path) -> None:
    Image.fromarray(VIDEO[0]).save(tmp_path / "whole.png")
    cut = (tmp_path / "whole.png").read_bytes()[:-60]
    for name, content, reason in (
        ("a.mp4", b"no video", "is "),
        ("b.webp", b"no video", "does not contain a picture that can be read"),
        ("c.webp", b"", "is empty"),
        ("d.png", cut, r"is damaged or cut short \(.+\): copy or export"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=rf"'{tmp_path / name}' {reason}"):
            Folder(tmp_path)([request(VIDEO, name[0])])


def test_an_id_does_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    written(tmp_path, "webp", "a")
    (tmp_path / "inner").mkdir()
    with pytest.raises(UserError, match="leads out of"):
        Folder(tmp_path / "inner")([request(VIDEO, "../a")])


def test_dots_in_an_id_are_kept(tmp_path: Path) -> None:
    written(tmp_path, "webp", "v1.5")
    Folder(tmp_path).require(["v1.5"])
    with pytest.raises(UserError, match="lacks clip 'v1.6'"):
        Folder(tmp_path).require(["v1.6"])
