"""H.264 video can be decoded to nearly, or exactly, the same frames, and plays everywhere."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.io.formats.clips import cartoon, files, psnr
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io import grey_of_rgb, write_mp4
from tooncrafter_jax.io.formats import FORMATS, FormatOptions, mp4


def decode(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """The frames, and what the file says of them."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])
        codec = stream.codec_context
        assert stream.duration is not None and stream.time_base is not None
        return frames, {
            "codec": codec.name,
            "pixels": codec.pix_fmt,
            "matrix": codec.colorspace,
            "range": codec.color_range,
            "rate": stream.average_rate,
            "seconds": stream.duration * stream.time_base,
        }


def test_it_decodes_to_nearly_the_same_frames(tmp_path: Path):
    frames = cartoon(16, 160, 256)
    write_mp4(tmp_path / "new" / "a.mp4", frames)
    decoded, facts = decode(tmp_path / "new" / "a.mp4")
    # Measured: 32.0 dB, where an ideal halving of the colour resolution alone gives 32.1. The luma has 44.3 dB; at the
    # encoder's default crf of 23 it would be 42.5.
    assert decoded.shape == frames.shape and psnr(decoded, frames) > 31
    luma, expected = (np.stack([grey_of_rgb(frame) for frame in video]) for video in (decoded, frames))
    assert psnr(luma, expected) > 43.5
    assert all(psnr(decoded[i], frames[i]) > psnr(decoded[i], frames[i - 1]) + 5 for i in range(1, 16))
    # Matrix 1 is BT.709 and range 1 is limited.
    assert facts == {"codec": "h264", "pixels": "yuv420p", "matrix": 1, "range": 1, "rate": 8, "seconds": 2}
    assert files(tmp_path / "new") == ["a.mp4"]


def test_saturated_colours_are_kept(tmp_path: Path):
    # A wrong colour matrix or range would move these by 10 to 30 levels.
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0), (255, 255, 255), (255, 200, 160)]
    frames = np.stack([np.full((32, 32, 3), colour, np.uint8) for colour in colours])
    write_mp4(tmp_path / "a.mp4", frames)
    decoded, _ = decode(tmp_path / "a.mp4")
    assert np.abs(decoded.astype(int) - frames).max() <= 4


@pytest.mark.parametrize(("fps", "rate"), [(Fraction(24000, 1001), Fraction(24000, 1001)), (12.5, Fraction(25, 2))])
def test_the_rate_is_kept(tmp_path: Path, fps: Any, rate: Fraction):
    write_mp4(tmp_path / "a.mp4", cartoon(8), fps=fps)
    assert decode(tmp_path / "a.mp4")[1]["rate"] == rate


def test_one_frame_is_enough(tmp_path: Path):
    write_mp4(tmp_path / "a.mp4", cartoon(1))
    assert decode(tmp_path / "a.mp4")[0].shape == (1, 64, 96, 3)


def test_the_index_comes_first(tmp_path: Path):
    """Browsers can then begin to play before they have the whole file."""
    write_mp4(tmp_path / "a.mp4", cartoon())
    data = (tmp_path / "a.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize(("pixel_format", "atol"), [("yuv420p", 110), ("yuv444p", 12), ("rgb24", 0)])
def test_a_thin_red_line_by_pixel_format(tmp_path: Path, pixel_format: str, atol: int):
    """In yuv420p a line of one pixel shares its colour with its neighbours; the file says how colours are stored."""
    frames = np.full((3, 64, 64, 3), 255, np.uint8)
    frames[:, :, 31] = (255, 0, 0)
    FORMATS["mp4"].write(tmp_path / "a.mp4", frames, 8, FormatOptions(pixel_format=pixel_format))
    decoded, facts = decode(tmp_path / "a.mp4")
    assert (facts["matrix"], facts["range"]) == ((0, 2) if pixel_format == "rgb24" else (1, 1))
    line = decoded[:, 8:-8, 31].astype(int)
    worst = np.abs(line - (255, 0, 0)).max()
    assert worst <= atol and (pixel_format != "yuv420p" or worst > 60)


def test_impossible_settings_are_named(tmp_path: Path):
    path, frames = tmp_path / "a.mp4", cartoon()
    with pytest.raises(UserError, match="96 x 63 pixels: H.264"):
        write_mp4(path, frames[:, :63])
    with pytest.raises(UserError, match="fps is 0"):
        write_mp4(path, frames, fps=0)
    with pytest.raises(UserError, match="unknown pixel format 'yuv999': choose of yuv420p, yuv444p, rgb24"):
        write_mp4(path, frames, pixel_format="yuv999")
    assert files(tmp_path) == []


def test_a_missing_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mp4, "H264_ENCODER", "no_such_encoder")
    with pytest.raises(UserError, match="no H.264 encoder"):
        write_mp4(tmp_path / "a.mp4", cartoon())
    assert files(tmp_path) == []
