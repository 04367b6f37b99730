"""ToonCrafter, generative cartoon in-betweening, in JAX: two drawings in, a video out."""

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.notes import Note
from tooncrafter_jax.sampling.observation import Progress
from tooncrafter_jax.sampling.pipeline import ToonCrafter
from tooncrafter_jax.sampling.request import Pair, SamplingOptions, Sketch

load = ToonCrafter.load

__version__ = "0.1.0"
__all__ = ["Note", "Pair", "Progress", "SamplingOptions", "Sketch", "ToonCrafter", "UserError", "__version__", "load"]
