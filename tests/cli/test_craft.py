"""The text detector CRAFT on the command line: `convert` recognises its file, `curate` checks it before anything
starts.
"""

from __future__ import annotations

import json
import struct
from math import prod
from pathlib import Path

import numpy as np
import pytest

from tests.cli.world import Command
from tests.reference import key_list
from tests.zoo.craft_inputs import SMALL, tensors
from tooncrafter_jax.cli.common import Parser
from tooncrafter_jax.cli.curation_stages import add_measurements, measurements_of
from tooncrafter_jax.curation.craft_detector import CraftDetector
from tooncrafter_jax.curation.protocols import Stage
from tooncrafter_jax.curation.text import PpOcrDetector, Text
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.zoo.craft import weights as craft
from tooncrafter_jax.zoo.craft.weights import load_craft

OTHERS_OFF = ("--no-fingerprints", "--motion=off")


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A file with the names and shapes of the published one, and a hole for its tensors."""
    header, end = {}, 0
    for name, shape in key_list("craft/keys.tsv").items():
        kind, size = ("I64", 8) if name.endswith("num_batches_tracked") else ("F32", 4)
        start, end = end, end + size * prod(shape)
        header[f"module.{name}"] = {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}
    written = json.dumps(header).encode()
    with (tmp_path / "craft_mlt_25k.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(written)) + written)
        file.truncate(8 + len(written) + end)
    return tmp_path / "craft_mlt_25k.safetensors"


def stages(*argv: str, films: bool = False) -> list[Stage]:
    parser = Parser("curate")
    add_measurements(parser, films=films)
    return measurements_of(parser.parse_args([*OTHERS_OFF, *argv])).stages()


@pytest.mark.parametrize("films", [True, False])
def test_text_is_found_by_what_was_asked_for(published: Path, films: bool) -> None:
    text = stages("--text=craft", f"--craft-weights={published}", films=films)[-1]
    assert text == Text(CraftDetector(published))
    assert stages("--text=ppocr", films=films)[-1] == Text(PpOcrDetector())


def test_mistakes_are_a_sentence_before_anything_starts(published: Path, tmp_path: Path, command: Command) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(published.read_bytes()[:-1])
    np.save(tmp_path / "array.npy", np.zeros(3))
    for argv, phrases in (
        (["--text=craft"], ("--text=craft needs the weights", "--craft-weights")),
        ([f"--craft-weights={published}"], ("--craft-weights goes with --text=craft",)),
        (["--text=ppocr", f"--craft-weights={published}"], ("--craft-weights goes with --text=craft",)),
        (["--text=craft", "--craft-weights=/nowhere/craft.pth"], ("no file /nowhere/craft.pth",)),
        (["--text=craft", f"--craft-weights={tmp_path}"], ("is a directory",)),
        (["--text=craft", f"--craft-weights={tmp_path / 'array.npy'}"], ("array.npy is of an unknown kind",)),
        (["--text=craft", f"--craft-weights={cut}"], ("cut.safetensors is cut off",)),
    ):
        out = tmp_path / "out"
        result = command("curate", "bodies", f"--out={out}", "--count=1", "--workers=0", *OTHERS_OFF, *argv)
        assert result.code == 2 and len(result.err.splitlines()) == 1, result
        assert result.err.startswith("error: ") and not result.err.rstrip().endswith("."), result
        for phrase in phrases:
            assert phrase in result.err
        assert not out.exists()


def test_a_file_of_another_architecture(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file(tensors(SMALL), tmp_path / "small.safetensors")
    with pytest.raises(UserError, match="small.safetensors does not fit .* basenet.slice1.0.weight is 2x3x3x3"):
        stages("--text=craft", f"--craft-weights={tmp_path / 'small.safetensors'}")


def test_one_file_is_written(tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.numpy import save_file

    monkeypatch.setattr(craft, "CraftConfig", lambda: SMALL)
    file, own = tmp_path / "craft.safetensors", tmp_path / "own.safetensors"
    save_file({f"module.{name}": value for name, value in tensors().items()}, file)
    result = command("convert", str(file), str(own))
    assert (result.code, result.err) == (0, "")
    assert "134 tensors consumed, CRAFT" in result.out
    again = load_craft(own)
    for name, value in load_craft(file).items():
        np.testing.assert_array_equal(again[name], value)
