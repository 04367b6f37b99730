"""The TFDS builder `cartoon_clips`: clips in ArrayRecord shards.

Importing this package registers the builder; `tfds.builder("cartoon_clips", data_dir=...)` opens a set that was written
before even without it. It lives in a package of its own because TFDS looks for its builders' metadata beside them.
"""

from tooncrafter_jax.data.cartoon_clips.builder import CartoonClips

__all__ = ["CartoonClips"]
