"""ToonCrafter, generative cartoon in-betweening, in JAX: two drawings in, a video out.

What is named here is loaded when it is first used, so that `tooncrafter --help` need not wait for JAX.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tooncrafter_jax.errors import UserError
    from tooncrafter_jax.notes import Note
    from tooncrafter_jax.sampling.clip_store import ClipStore
    from tooncrafter_jax.sampling.observation import Progress
    from tooncrafter_jax.sampling.pipeline import ToonCrafter
    from tooncrafter_jax.sampling.request import Pair, SamplingOptions, Sketch
    from tooncrafter_jax.sampling.sequence import Shot, ShotOptions

    load = ToonCrafter.load

__version__ = "0.1.0"
__all__ = [
    "ClipStore",
    "Note",
    "Pair",
    "Progress",
    "SamplingOptions",
    "Shot",
    "ShotOptions",
    "Sketch",
    "ToonCrafter",
    "UserError",
    "__version__",
    "load",
]

_HOMES = {
    "ClipStore": "sampling.clip_store",
    "Note": "notes",
    "Pair": "sampling.request",
    "Progress": "sampling.observation",
    "SamplingOptions": "sampling.request",
    "Shot": "sampling.sequence",
    "ShotOptions": "sampling.sequence",
    "Sketch": "sampling.request",
    "ToonCrafter": "sampling.pipeline",
    "UserError": "errors",
}
"""A public name -> the module that it comes from."""

if not TYPE_CHECKING:  # type checkers then still complain about a name that is not there

    def __getattr__(name: str) -> object:
        """Loads a public name."""
        if name == "load":
            value = __getattr__("ToonCrafter").load
        elif name in _HOMES:
            value = getattr(importlib.import_module(f"tooncrafter_jax.{_HOMES[name]}"), name)
        else:
            raise AttributeError(f"module 'tooncrafter_jax' has no attribute '{name}'")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """The public names, loaded or not."""
    return list(__all__)
