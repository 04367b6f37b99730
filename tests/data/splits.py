"""What a set of clips says of itself."""

from __future__ import annotations

from pathlib import Path

import tensorflow_datasets as tfds


def split_sizes(directory: Path) -> dict[str, int]:
    """Number of clips by split."""
    (description,) = directory.rglob("dataset_info.json")
    return {
        name: split.num_examples for name, split in tfds.builder_from_directory(description.parent).info.splits.items()
    }
