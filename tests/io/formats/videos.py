"""Reads videos back with their opacity."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np


def read_rgba(path: Path, decoder: str) -> tuple[np.ndarray, dict[str, Any]]:
    """The frames (T, H, W, 4) by the named decoder of FFmpeg, and what the file says of them.

    FFmpeg's own decoder of VP9 does not look at opacity; that of libvpx does.
    """
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        codec: Any = av.CodecContext.create(decoder, "r")
        codec.extradata = stream.codec_context.extradata
        decoded = [frame for packet in container.demux(stream) for frame in codec.decode(packet)]
        frames = np.stack([frame.to_ndarray(format="rgba") for frame in decoded])
        pixels, rate = decoded[0].format.name, Fraction(stream.average_rate or 0)
        return frames, {"pixels": pixels, "rate": rate, "matrix": decoded[0].colorspace, **stream.metadata}
