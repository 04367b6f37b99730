"""The model that comes with the package, and the examples that show it."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tooncrafter_jax.cli.sample import main as sample
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.evaluation.rivals.blends import cross_fade
from tooncrafter_jax.io import read_image
from tooncrafter_jax.models.configuration import COMPONENTS, preset
from tooncrafter_jax.sampling.batch.making import BatchRequest, BatchResult
from tooncrafter_jax.sampling.model_loading import BUNDLED, DEFAULT_MODEL, find_checkpoint

REPOSITORY = Path(__file__).parents[1]
EXAMPLES = REPOSITORY / "examples"
MANIFESTS = ("demo.jsonl", "guided.jsonl")


def jobs(manifest):
    return [json.loads(line) for line in (EXAMPLES / manifest).read_text().splitlines()]


def psnr(one, other):
    return 10 * np.log10(255**2 / np.mean((one.astype(np.float64) - other) ** 2))


@pytest.fixture(scope="module")
def checkpoint():
    return find_checkpoint(DEFAULT_MODEL)


def test_it_is_a_whole_model_of_the_presets_widths_in_16_mib_beside_its_flows(checkpoint):
    wanted, found = preset(DEFAULT_MODEL), checkpoint.config
    assert [getattr(found, name).width for name in ("unet", "decoder")] == [wanted.unet.width, wanted.decoder.width]
    assert found.decoder.carried and found.motion.through_sketches
    assert set(checkpoint.components) == set(COMPONENTS)
    sizes = {file.name: file.stat().st_size for file in (BUNDLED / DEFAULT_MODEL).iterdir()}
    assert sizes.pop("motion.safetensors") <= 12e6
    assert sum(sizes.values()) <= 16 * 2**20
    assert "tooncrafter_jax/bundled/motion.LICENSE" in (REPOSITORY / "NOTICE").read_text()


def test_its_provenance_is_reported(checkpoint):
    provenance = checkpoint.provenance
    assert {"licence", "data", "configs", "commit", "seed"} <= set(provenance)
    assert (REPOSITORY / "configs/small.py").is_file() and provenance["configs"].startswith("configs/small")
    notice = (REPOSITORY / "NOTICE").read_text()
    assert "tooncrafter_jax/bundled/small" in notice
    assert all(pictures.name in notice for pictures in EXAMPLES.iterdir() if pictures.is_dir())


@pytest.mark.parametrize("start", ["sample.py", "tooncrafter sample"])
def test_without_arguments_the_examples_are_drawn(start, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(
        BatchRequest, "make", lambda request, listener, result=None: asked.append(request) or BatchResult(0)
    )
    main = runpy.run_path(str(REPOSITORY / start))["main"] if start == "sample.py" else sample
    assert main([]) == 0
    (request,) = asked
    assert request.inputs == [EXAMPLES / "demo.jsonl"] and len(request.jobs) == len(jobs("demo.jsonl"))
    assert request.plan.formats == ("mp4", "gif") and request.plan.contact_sheet and request.plan.cross_fade
    assert "tooncrafter sample --manifest" in capsys.readouterr().out


def test_without_arguments_or_examples_it_is_said_what_to_give(monkeypatch, tmp_path):
    monkeypatch.setattr("tooncrafter_jax.cli.sample.EXAMPLES", tmp_path / "demo.jsonl")
    with pytest.raises(
        UserError,
        match="give one of --first with --last, --keys, --timesheet, --reference with --sketches, --folder, or",
    ):
        sample([])


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_examples_name_pictures_that_are_there(manifest):
    for job in jobs(manifest):
        for name in (job["first"], job["last"], *job.get("sketches", {}).values()):
            with Image.open(EXAMPLES / name) as picture:
                assert picture.size == (128, 128)


@pytest.mark.gate
def test_an_example_begins_and_ends_with_its_pictures_and_moves_between(tmp_path):
    job = jobs("demo.jsonl")[0]
    first, last = EXAMPLES / job["first"], EXAMPLES / job["last"]
    arguments = [f"--first={first}", f"--last={last}", f"--out={tmp_path / 'clip'}", "--format=png", "--quiet"]
    assert sample([*arguments, "--prompt", job.get("prompt", "")]) == 0
    frames = np.stack([read_image(path) for path in sorted((tmp_path / "clip").glob("*.png"))])
    assert frames.shape == (16, 128, 128, 3)
    for frame, given in ((frames[0], first), (frames[-1], last)):
        assert psnr(frame, read_image(given)) > 45
    faded = cross_fade(frames[:1], frames[-1:], 16)[0]
    assert psnr(frames[8], faded[8]) < 35  # not the cross-fade
    assert psnr(frames[8], frames[0]) < psnr(frames[1], frames[0])
