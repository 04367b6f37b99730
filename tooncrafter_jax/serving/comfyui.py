"""Puts the node for ComfyUI (`serving.comfyui_node`, a file that stands alone) where ComfyUI looks for it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from tooncrafter_jax import __version__
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.atomic_files import cannot_write, write_atomically
from tooncrafter_jax.io.owned_files import foreign

NODE = Path(__file__).with_name("comfyui_node.py")
"""What is written."""
FILE = "tooncrafter_jax_node.py"
"""What it is called there."""
_MARK = b"# tooncrafter-jax "
_REMEDY = "move it out of this directory, or choose another one"


def write_node(directory: Path) -> Path:
    """Writes the node, over one of another version that is as it was written.

    Its first line has the checksum of the others, by which it is known again. An edited one is not kept under another
    name, as elsewhere: ComfyUI would read both.

    Args:
      directory: ComfyUI's `custom_nodes`, or another; is made if it is missing.

    Returns:
      The file.

    Raises:
      UserError: somebody else's file, or one that was edited, is in the way, or it cannot be written.
    """
    path = directory / FILE
    if os.path.lexists(path):
        if path.is_symlink() or not path.is_file():
            raise foreign(path, _REMEDY)
        try:
            there = path.read_bytes()
        except OSError as error:
            raise cannot_write(str(path), error) from error
        mark, _, rest = there.partition(b"\n")
        if there and not mark.startswith(_MARK):
            raise foreign(path, _REMEDY)
        if there and mark.rpartition(b" ")[2] != _digest(rest):
            raise UserError(f"'{path}' was edited since it was written: {_REMEDY}")
    node = NODE.read_bytes()
    mark = f"{__version__} wrote this file; sha256 of what follows: ".encode()
    write_atomically(path, _MARK + mark + _digest(node) + b"\n" + node)
    return path


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()
