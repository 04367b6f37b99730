"""Embeddings: the same training inputs as the encoders give on the fly, made in pieces, refused where they do not
fit.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from tests.data.loader_world import LENGTHS, make_set
from tests.reference import tiny_params
from tooncrafter_jax.data.embedding_writer import embed, weights_digest
from tooncrafter_jax.data.embeddings import ENCODERS, EmbeddingConfig, EmbeddingSource, clipped_moments
from tooncrafter_jax.data.loader import Loader, LoaderConfig
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.configuration import tiny
from tooncrafter_jax.sampling.pipeline import ToonCrafter
from tooncrafter_jax.training.configuration import train_config
from tooncrafter_jax.training.stages import make_stage
from tooncrafter_jax.training.stages.encoding import picture_tokens, text_tokens
from tooncrafter_jax.weights.store import CheckpointWriter

MADE = EmbeddingConfig(height=16, width=24, start_multiple=4)
ASKED = LoaderConfig(batch=4, height=16, width=24, start_multiple=4, dropout=0.2, prefetch=0, seed=3)
SHORTER = (16, 17, 24, 16, 17, 28, 15, 20, 16, 18, 16)
"""Frames of the clips, fewer than in the tests of the loader; one has too few for a window."""


def _shorter() -> dict[str, Any]:
    return {f"clip_{number}": {"length": length} for number, length in enumerate(SHORTER)}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return make_set(tmp_path_factory.mktemp("set"), **_shorter())


@pytest.fixture(scope="module")
def toon():
    return ToonCrafter(tiny(), {name: tiny_params(name) for name in ENCODERS}, devices=jax.devices()[:1])


@pytest.fixture(scope="module")
def directory(clips, toon, tmp_path_factory):
    """Embeddings made in one go, in several files."""
    directory = tmp_path_factory.mktemp("embeddings")
    assert embed(clips, toon, directory, MADE, shard_bytes=300_000)
    assert 2 <= len(list(directory.glob("records-*"))) < len(LENGTHS)
    return directory


def _batches(source, config=ASKED, count=4) -> list[Any]:
    with Loader(source, config) as loader:
        return [next(loader) for _ in range(count)]


def _next(loader) -> Any:
    return next(loader)


@pytest.mark.gate
def test_they_equal_the_encoders_on_the_fly(clips, toon, directory):
    """float16 has a relative step of 2**-11; the sums of the two programs differ by less than a tenth of that."""
    pixels, embedded = _batches(clips), _batches(EmbeddingSource(directory))
    drops = {(bool(batch["token_ids"][i, 2]), bool(batch["drop_image"][i])) for batch in pixels for i in range(4)}
    assert len(drops) == 4, "every combination of dropped conditions is met"
    stage: Any = make_stage(train_config({"model": "tiny", "dtype": "float32"}), toon.config)
    params = {f"{name}.{path}": value for name in ENCODERS for path, value in toon.params[name].items()}

    @jax.jit
    def encoded(params, batch):
        model = stage.bound(params)
        return (
            clipped_moments(model.moments(batch["video"])),
            text_tokens(model, batch, "float32"),
            picture_tokens(model, batch, "float32"),
        )

    for before, after in zip(pixels, embedded, strict=True):
        assert after.keys() == before.keys() - {"video"} | {"moments", "text", "image"}
        assert {after[name].dtype.name for name in ("moments", "text", "image")} == {"float16"}
        for name in after.keys() & before.keys():
            np.testing.assert_array_equal(after[name], before[name], err_msg=name)
        on_the_fly = encoded(params, {name: before[name] for name in ("video", "token_ids", "drop_image")})
        given = {name: jnp.asarray(rows) for name, rows in after.items()}
        tokens = (of_batch(stage.bound({}), given, "float32") for of_batch in (text_tokens, picture_tokens))
        read = (given["moments"].astype(jnp.float32), *tokens)
        for found, expected in zip(read, on_the_fly, strict=True):
            assert found.dtype == np.float32 and found.shape == expected.shape
            np.testing.assert_allclose(found, expected, rtol=2**-11, atol=1e-4)


@pytest.mark.gate
def test_pixels_come_along_where_they_are_asked_for(clips, directory):
    config = replace(ASKED, video=True)
    for both, pixels in zip(_batches(EmbeddingSource(directory, clips), config), _batches(clips), strict=True):
        assert both.keys() == pixels.keys() | {"moments", "text", "image"}
        np.testing.assert_array_equal(both["video"], pixels["video"])


def test_a_process_reads_its_rows_of_the_batch_of_all(directory):
    """Also where they are no neighbours: each row is that of the whole batch, whoever else loads it."""
    source = EmbeddingSource(directory)
    whole = _batches(source)
    for rows in ([0, 3], [1], [1, 2]):
        with Loader(source, ASKED, rows=rows) as loader:
            for batch in whole:
                part = _next(loader)
                assert part.keys() == batch.keys() and "moments" in part
                for name in part:
                    np.testing.assert_array_equal(part[name], batch[name][rows], err_msg=name)


def test_the_loader_opens_what_its_config_names(clips, directory):
    config = replace(ASKED, embeddings=str(directory))
    with Loader.open(config) as loader:
        np.testing.assert_array_equal(
            _next(loader)["moments"], _batches(EmbeddingSource(directory), count=1)[0]["moments"]
        )
    with Loader.open(replace(ASKED, directory=str(clips.directory))) as loader:
        np.testing.assert_array_equal(_next(loader)["video"], _batches(clips, count=1)[0]["video"])
    with pytest.raises(UserError, match="directory is empty"):
        Loader.open(ASKED)
    with pytest.raises(UserError, match="directory is empty"):
        Loader.open(replace(config, video=True))


def test_a_stopped_run_goes_on_and_parts_make_the_whole(clips, toon, directory, tmp_path):
    """Stopped in the first part; then both parts, the last of which makes it readable."""

    def stop(done, total):
        assert total == 5
        if done == 4:
            raise KeyboardInterrupt

    settings: dict[str, Any] = {"shard_bytes": 130_000, "part": (0, 2)}
    with pytest.raises(KeyboardInterrupt):
        embed(clips, toon, tmp_path, MADE, on_progress=stop, **settings)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("records-*")}
    assert written
    with pytest.raises(UserError, match="unfinished"):
        EmbeddingSource(tmp_path)
    progress = []
    assert not embed(clips, toon, tmp_path, MADE, on_progress=lambda *at: progress.append(at), **settings)
    kept = sum(int(path.name[17:25]) - int(path.name[8:16]) for path in written)
    assert progress == [(done, 5) for done in range(kept + 1, 6)]
    assert {path: path.stat().st_mtime_ns for path in written} == written, "finished files are left as they are"
    settings["part"] = (1, 2)
    assert embed(clips, toon, tmp_path, MADE, **settings)
    for found, expected in zip(_batches(EmbeddingSource(tmp_path)), _batches(EmbeddingSource(directory)), strict=True):
        for name in expected:
            np.testing.assert_allclose(found[name], expected[name], rtol=2**-10, atol=1e-5)


@pytest.mark.gate
def test_a_checkpoint_directory_serves_as_model(clips, toon, directory, tmp_path):
    """Only the encoders are read from it."""
    with CheckpointWriter(tmp_path / "model", tiny(), {}) as writer:
        for name in ("unet", "image_projector", "decoder"):
            writer.write(name, {"unused": jnp.zeros(1)})
        for name in ENCODERS:
            writer.write(name, toon.params[name])
    assert embed(clips.directory, tmp_path / "model", tmp_path / "out", MADE)
    found, expected = EmbeddingSource(tmp_path / "out"), EmbeddingSource(directory)
    assert found.settings == expected.settings
    assert found.settings["weights"] == weights_digest(toon.params)
    for one, other in zip(_batches(found, count=2), _batches(expected, count=2), strict=True):
        for name in one:
            np.testing.assert_allclose(one[name], other[name], rtol=2**-10, atol=1e-4)


def test_bfloat16_is_read_as_it_is_stored(directory, tmp_path):
    """Written here, as compiling the encoders once more would take long; `test_storage_dtypes` does that."""
    for path in directory.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    for path in tmp_path.glob("*.safetensors"):
        with safe_open(path, framework="numpy") as file:
            tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()
        large = {n: t.astype(jnp.bfloat16) if t.dtype == np.float16 else t for n, t in tensors.items()}
        save_file(large, path, metadata=metadata)
    with Loader(EmbeddingSource(tmp_path), replace(ASKED, num_workers=1, prefetch=1)) as loader:
        found = _next(loader)
    expected = _batches(EmbeddingSource(directory), count=1)[0]
    for name in ("moments", "text", "image"):
        assert found[name].dtype == jnp.bfloat16
        np.testing.assert_array_equal(found[name], expected[name].astype(jnp.bfloat16))


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "step"), [("bfloat16", 2**-8), ("float32", 1e-6)])
def test_storage_dtypes(clips, toon, directory, tmp_path, dtype, step):
    """With another size of batch too, and on two devices."""
    two = ToonCrafter(toon.config, toon.params, devices=jax.devices()[:2])
    assert embed(clips, two, tmp_path, replace(MADE, dtype=dtype), frames_per_batch=7)
    for one, other in zip(_batches(EmbeddingSource(tmp_path)), _batches(EmbeddingSource(directory)), strict=True):
        for name in ("moments", "text", "image"):
            assert one[name].dtype == jnp.dtype(dtype)
            np.testing.assert_allclose(
                one[name].astype(np.float32), other[name].astype(np.float32), rtol=step + 2**-11, atol=1e-4
            )


def test_a_damaged_clip_is_named_or_left_out(toon, tmp_path):
    clips = make_set(tmp_path / "set", **_shorter() | {"clip_5": {"damaged": True}})
    with pytest.raises(UserError, match="film 5/0"):
        embed(clips, toon, tmp_path / "out", MADE)
    assert embed(clips, toon, tmp_path / "out", MADE, on_damaged="skip")
    source = EmbeddingSource(tmp_path / "out")
    with pytest.raises(UserError, match="was damaged when"):
        _batches(source)
    with Loader(source, replace(ASKED, on_damaged="skip")) as loader:
        shown = [next(loader)["record"] for _ in range(6)]
        assert loader.unusable["damaged"] >= 2
    assert "film 5" not in {clips[int(record)].source for record in np.ravel(shown)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"height": 24}, "made with height = 16, but config.data.height is 24"),
        ({"antialias": True}, "made with antialias = False"),
        ({"frames": 15}, "examples of 16 frames or more, not 15"),
        ({"start_multiple": 6}, "start at multiples of 4, not of 6"),
        ({"video": True}, "hold no pixels"),
        ({"crop_from": (20, 28)}, "are of whole pictures"),
    ],
)
def test_a_loader_that_asks_for_something_else_is_refused(directory, change, message):
    with pytest.raises(UserError, match=message):
        Loader(EmbeddingSource(directory), replace(ASKED, **change))


def test_other_sets_models_and_sizes_are_refused(clips, toon, directory, tmp_path):
    with pytest.raises(UserError, match="of 11 clips, but the set has 4"):
        EmbeddingSource(directory, list(clips)[:4])
    with pytest.raises(UserError, match="of another set: its clip"):
        _batches(EmbeddingSource(directory, list(clips)[::-1]), replace(ASKED, video=True))
    with pytest.raises(UserError, match="holds embeddings with dtype = float16, but now it is float32"):
        embed(clips, toon, directory, replace(MADE, dtype="float32"))
    with pytest.raises(UserError, match="both must be multiples of 8"):
        embed(clips, toon, tmp_path, replace(MADE, width=20))
    with pytest.raises(UserError, match="holds no embeddings"):
        EmbeddingSource(tmp_path)
    with pytest.raises(UserError, match="no part 2 of 2"):
        embed(clips, toon, tmp_path, MADE, part=(2, 2))
    with pytest.raises(UserError, match="no clips"):
        embed([], toon, tmp_path, MADE)
    with pytest.raises(UserError, match="frames is 0"):
        EmbeddingConfig(frames=0)


def test_values_too_large_for_the_storage_are_refused(clips, toon, tmp_path):
    params = dict(toon.params)
    params["clip_text"] = dict(params["clip_text"]) | {
        "norm_final.scale": 1e6 * params["clip_text"]["norm_final.scale"]
    }
    with pytest.raises(UserError, match=r"\(text\) is too large for float16"):
        embed(clips, ToonCrafter(toon.config, params, devices=toon.devices), tmp_path, MADE)


def test_damaged_files_are_reported(directory, tmp_path):
    def copy(name: str, damage) -> Path:
        target = tmp_path / name
        target.mkdir()
        for path in directory.iterdir():
            (target / path.name).write_bytes(path.read_bytes())
        damage(target)
        return target

    def cut(pattern: str):
        return lambda target: [path.write_bytes(path.read_bytes()[:-100]) for path in target.glob(pattern)]

    with pytest.raises(UserError, match="records-.* is missing or damaged"):
        _batches(EmbeddingSource(copy("records", cut("records-*"))))
    with pytest.raises(UserError, match="constants.safetensors' is missing or damaged"):
        _batches(EmbeddingSource(copy("constants", cut("constants*"))))
    with pytest.raises(UserError, match="index.json' is damaged"):
        EmbeddingSource(copy("index", lambda target: (target / "index.json").write_text("[1")))
    newer = {"format": 2}
    with pytest.raises(UserError, match="have format 2"):
        EmbeddingSource(copy("format", lambda target: (target / "settings.json").write_text(json.dumps(newer))))
    with pytest.raises(UserError, match="are damaged"):
        EmbeddingSource(copy("keys", lambda target: (target / "settings.json").write_text('{"format": 1}')))
