"""How near two carried pictures are to the truth when sketches of some frames bend RIFE's motion.

  python scripts/measure_sketched_motion.py --set=DIR [--split=test] [--limit=40]

Nothing is trained: flows are RIFE's, lines and sketches HED's (`models.sketched_motion`). Both pictures are carried to
every frame and blended; no denoiser and no decoder takes part. Printed are LPIPS (AlexNet) of all frames and of the
middle one, against RIFE's as a share, and PSNR of the frames between.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from tooncrafter_jax.data.clip_sets import ClipSet
from tooncrafter_jax.evaluation.true_clips import TrueClips, WindowRule
from tooncrafter_jax.io import to_uint8
from tooncrafter_jax.models.motion_network import MotionConfig, MotionNetwork
from tooncrafter_jax.models.network import Network
from tooncrafter_jax.models.tooncrafter import condition_latents
from tooncrafter_jax.nn.pixels import to_pixels
from tooncrafter_jax.sampling.motion_source import published_motion
from tooncrafter_jax.sketches import load_extractor
from tooncrafter_jax.typing import DeviceParams, Hints, Video
from tooncrafter_jax.zoo.metric_weights import load_lpips

FRAMES, SIZE = 16, 128
SKETCHED = {"no sketch": (), "one sketch": (8,), "three sketches": (4, 8, 12)}


def motion_network() -> tuple[Network[MotionNetwork], DeviceParams]:
    """RIFE, whose motion goes through sketches, with the published weights of RIFE and HED."""
    config = MotionConfig(through_sketches=True)
    return Network(MotionNetwork, config), published_motion(through_sketches=True)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", type=Path, required=True, help="directory of a clip set")
    parser.add_argument("--split", default="test", help="of the set (default: %(default)s)")
    parser.add_argument("--limit", type=int, default=40, help="how many clips (default: %(default)s)")
    arguments = parser.parse_args()
    rule = WindowRule(FRAMES, SIZE, SIZE, stride=3, start="motion")
    clips = TrueClips(ClipSet(arguments.set, arguments.split), rule, arguments.limit)
    (network, params), lpips, extractor = motion_network(), load_lpips("alexnet"), load_extractor("hed")

    @jax.jit
    def draw(params: DeviceParams, ends: Video, hints: Hints) -> Video:
        return network.bind(params)(ends, FRAMES, hints).carried(condition_latents(ends, FRAMES))

    @jax.jit
    def distances(params: DeviceParams, made: Video, truth: Video) -> jax.Array:
        return lpips.network.bind(params)(made, truth)

    rows: dict[str, list[tuple[float, float, float]]] = {name: [] for name in SKETCHED}
    for number in range(len(clips)):
        truth = to_pixels(jnp.asarray(clips[number].video))
        sketches = 1 - extractor(truth)
        for name, frames in SKETCHED.items():
            hints = jnp.zeros_like(sketches).at[jnp.asarray(frames, int)].set(sketches[jnp.asarray(frames, int)])
            made = to_pixels(to_uint8(draw(params, truth[None, jnp.asarray([0, -1])], hints[None])[0]))
            apart = np.asarray(distances(lpips.params, made, truth))
            errors = np.square(np.asarray(made - truth)[1:-1] / 2).mean((1, 2, 3))
            psnr = float(-10 * np.log10(np.maximum(errors, 1e-10)).mean())
            rows[name].append((float(apart.mean()), float(apart[FRAMES // 2]), psnr))
        print(f"{number + 1} of {len(clips)}: {clips[number].id}", flush=True)
    print("\n| | LPIPS | against RIFE | of the middle frame | against RIFE | PSNR |\n|---|---|---|---|---|---|")
    base = np.mean(rows["no sketch"], axis=0)
    for name, values in rows.items():
        whole, middle, psnr = np.mean(values, axis=0)
        shares = f"{whole / base[0] - 1:+.1%}", f"{middle / base[1] - 1:+.1%}"
        print(f"| {name} | {whole:.4f} | {shares[0]} | {middle:.4f} | {shares[1]} | {psnr:.2f} |")


if __name__ == "__main__":
    main()
