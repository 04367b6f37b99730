"""What is said where a device has too little memory to sample."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import jax

from tooncrafter_jax.errors import is_out_of_memory, out_of_memory


@contextlib.contextmanager
def memory_explained() -> Iterator[None]:
    """Inside, a device without enough memory to sample ends in a sentence.

    Raises:
      UserError: there was not enough.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            raise
        remedy = (
            "lower --batch-size, --decode-frames-per-chunk, --height and --width, use --memory=low, --dtype=bfloat16, "
            "--weight-dtype=int8 or --sequential-guidance"
        )
        raise out_of_memory("to sample", remedy) from error
