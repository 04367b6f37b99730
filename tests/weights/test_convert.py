"""A published file becomes a checkpoint directory, and a sketch encoder is added to it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.reference import key_list, tiny_params
from tests.weights import layouts
from tests.weights.layouts import Listed
from tooncrafter_jax import notes
from tooncrafter_jax.diffusion.schedule import NoiseSchedule, ScheduleConfig
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.clip_image import ClipImageConfig
from tooncrafter_jax.models.clip_text import ClipTextConfig
from tooncrafter_jax.models.configuration import ModelConfig, tiny
from tooncrafter_jax.sampling.request import make_options
from tooncrafter_jax.weights.convert import Conversion, convert
from tooncrafter_jax.weights.official import SCHEDULE_BUFFERS
from tooncrafter_jax.weights.relatives import VARIANTS, adapted, variant_of
from tooncrafter_jax.weights.rule import make
from tooncrafter_jax.weights.sources import SafetensorsSource
from tooncrafter_jax.weights.store import Checkpoint, CheckpointWriter

REAL = "keys/tooncrafter_512.tsv"
FULL = ("unet", "image_projector", "clip_text", "clip_image", "autoencoder", "decoder")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny model and its sketch encoder as the published files are laid out, in half precision."""
    folder = tmp_path_factory.mktemp("files")
    buffers = NoiseSchedule().buffers()
    model = {
        name: buffers[name] if name in SCHEDULE_BUFFERS else make(name, shape).astype(ml_dtypes.bfloat16)
        for name, shape in key_list("tiny/keys.tsv").items()
    }
    sketch = {
        name: make(f"control_model.{name}", shape).astype(ml_dtypes.bfloat16)
        for name, shape in key_list("tiny/sketch_keys.tsv").items()
    }
    paths = {"model": folder / "model.safetensors", "sketch": folder / "sketch_encoder.safetensors"}
    save_file(model, paths["model"])
    save_file(sketch, paths["sketch"])
    return paths


@pytest.fixture(scope="module")
def converted(
    files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, tiny_config: ModelConfig
) -> tuple[Path, Conversion, list[tuple[str, int]]]:
    """The full model as a checkpoint directory in bfloat16; what was reported; the components in order."""
    directory, seen = tmp_path_factory.mktemp("converted") / "tiny", []
    report = convert(
        files["model"],
        directory,
        tiny_config,
        dtype=ml_dtypes.bfloat16,
        on_component=lambda name, count: seen.append((name, count)),
    )
    return directory, report, seen


def same_as_rule(directory: Path, component: str, config: ModelConfig) -> None:
    """The component holds the rule's values, rounded to bfloat16."""
    found = Checkpoint(directory).restore(component, config.networks()[component])
    for path, value in tiny_params(component).items():
        rounded = np.asarray(value).astype(ml_dtypes.bfloat16).astype(np.float32)
        np.testing.assert_array_equal(np.asarray(found[path]), rounded, err_msg=path)


@pytest.mark.gate
def test_the_full_model(converted: tuple[Path, Conversion, list[tuple[str, int]]], tiny_config: ModelConfig) -> None:
    directory, report, seen = converted
    assert report.components == FULL and report.kept == ()
    assert report.buffers == 13
    assert report.consumed + report.buffers + len(report.unused) == len(key_list("tiny/keys.tsv"))
    assert [name for name, _ in seen] == list(FULL) and sum(count for _, count in seen) == report.consumed
    checkpoint = Checkpoint(directory)
    assert checkpoint.components == FULL and checkpoint.config == tiny_config
    assert checkpoint.provenance["converted_from"] == "model.safetensors"
    checkpoint.require()
    same_as_rule(directory, "decoder", tiny_config)
    same_as_rule(directory, "image_projector", tiny_config)


def test_a_sketch_encoder_is_added_and_replaced_only_on_request(
    converted: tuple[Path, Conversion, list[tuple[str, int]]], files: dict[str, Path], tiny_config: ModelConfig
) -> None:
    directory, _, _ = converted
    report = convert(files["sketch"], directory, tiny_config, dtype=ml_dtypes.bfloat16)
    assert report.components == ("sketch_encoder",) and report.kept == FULL and report.consumed == 340
    checkpoint = Checkpoint(directory)
    assert checkpoint.components == (*FULL, "sketch_encoder")
    assert checkpoint.provenance["converted_from"] == "sketch_encoder.safetensors"
    assert checkpoint.provenance["before"]["converted_from"] == "model.safetensors"
    same_as_rule(directory, "sketch_encoder", tiny_config)
    same_as_rule(directory, "image_projector", tiny_config)  # what was there is still there

    with pytest.raises(UserError, match="holds sketch_encoder already: add --overwrite to replace it"):
        convert(files["sketch"], directory, tiny_config)
    report = convert(files["sketch"], directory, tiny_config, dtype=ml_dtypes.bfloat16, overwrite=True)
    assert report.kept == FULL
    assert Checkpoint(directory).components == (*FULL, "sketch_encoder")

    with pytest.raises(UserError, match="has another architecture .tiny. than wider"):
        convert(files["sketch"], directory, replace(tiny_config, name="wider"), overwrite=True)
    with pytest.raises(UserError, match="exists already: choose another directory, or add --overwrite"):
        convert(files["model"], directory, tiny_config)
    same_as_rule(directory, "image_projector", tiny_config)
    assert [path.name for path in directory.parent.iterdir()] == [directory.name]


def test_a_sketch_encoder_alone(files: dict[str, Path], tmp_path: Path, tiny_config: ModelConfig) -> None:
    convert(files["sketch"], tmp_path / "sketch", tiny_config)
    checkpoint = Checkpoint(tmp_path / "sketch")
    assert checkpoint.components == ("sketch_encoder",)
    with pytest.raises(UserError, match="holds no unet"):
        checkpoint.require()
    same_as_rule(tmp_path / "sketch", "sketch_encoder", tiny_config)


@pytest.mark.gate
def test_a_model_is_added_to_a_sketch_encoder_that_was_there_first(
    files: dict[str, Path], tmp_path: Path, tiny_config: ModelConfig
) -> None:
    convert(files["sketch"], tmp_path / "model", tiny_config)
    report = convert(files["model"], tmp_path / "model", dtype=ml_dtypes.bfloat16)
    assert report.kept == ("sketch_encoder",)
    assert Checkpoint(tmp_path / "model").components == (*FULL, "sketch_encoder")
    (tmp_path / "model" / "model.json").write_text('{"format_version": 1, ')  # damaged: a whole model replaces it
    report = convert(files["model"], tmp_path / "model", tiny_config, dtype=ml_dtypes.bfloat16, overwrite=True)
    assert report.kept == () and Checkpoint(tmp_path / "model").components == FULL


def test_what_another_process_added_meanwhile_stays(
    files: dict[str, Path], tmp_path: Path, tiny_config: ModelConfig
) -> None:
    """A conversion has read which components it takes over before the other one adds its own."""
    sketch, other = tmp_path / "model", tmp_path / "other"
    convert(files["sketch"], sketch, tiny_config)

    def of_another_process(component: str, count: int) -> None:
        del component, count
        with CheckpointWriter(sketch, tiny_config, {"made": "meanwhile"}, overwrite=True) as writer:
            writer.copy(other, ["sketch_encoder"])

    convert(files["sketch"], other, tiny_config)
    with pytest.raises(UserError, match="model was written by another process meanwhile: run the same again"):
        convert(files["sketch"], sketch, tiny_config, overwrite=True, on_component=of_another_process)
    assert Checkpoint(sketch).provenance == {"made": "meanwhile"}


def test_values_that_the_dtype_does_not_hold(tmp_path: Path, tiny_config: ModelConfig) -> None:
    large = {"image_proj_model.norm_out.bias": np.full(64, 1e5, np.float32)}
    projector = layouts.model().kept(lambda name: name.startswith("image_proj_model."))
    assert projector.shapes["image_proj_model.norm_out.bias"] == (64,)
    path = layouts.write_safetensors(tmp_path / "projector.safetensors", projector.with_(large))
    with pytest.raises(UserError, match="image_projector.norm_out.bias of .* has values that float16 does not hold"):
        convert(path, tmp_path / "model", tiny_config, dtype=np.float16)
    assert [one.name for one in tmp_path.iterdir()] == ["projector.safetensors"]
    convert(path, tmp_path / "model", tiny_config, dtype=ml_dtypes.bfloat16)


def test_what_is_added_leaves_the_sampling_options_that_suit_the_model(
    files: dict[str, Path], tmp_path: Path, tiny_config: ModelConfig
) -> None:
    own = {"steps": 1, "exact_last_step": True}
    with CheckpointWriter(tmp_path / "model", tiny_config, {}, sampling=own) as writer:
        writer.write("image_projector", tiny_params("image_projector"))
    convert(files["sketch"], tmp_path / "model", tiny_config)
    checkpoint = Checkpoint(tmp_path / "model")
    assert checkpoint.components == ("image_projector", "sketch_encoder") and checkpoint.sampling == own


def test_a_file_that_does_not_fit_writes_nothing(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not fit this architecture"):
        convert(files["sketch"], tmp_path / "model", ModelConfig())
    assert not list(tmp_path.iterdir())


def test_no_cpu_backend_is_needed(
    files: dict[str, Path], tmp_path: Path, tiny_config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With JAX_PLATFORMS=cuda there is none; tensors go from the file to the disk without a device."""

    def none(*_: Any, **__: Any) -> Any:
        raise RuntimeError("Unknown backend cpu")

    for name in ("device_put", "devices", "local_devices"):
        monkeypatch.setattr(jax, name, none)
    convert(files["sketch"], tmp_path / "model", tiny_config)
    monkeypatch.undo()
    same_as_rule(tmp_path / "model", "sketch_encoder", tiny_config)


# --- several files, other models ---


def converted_from(directory: Path) -> Any:
    return Checkpoint(directory).provenance["converted_from"]


def params_of(directory: Path, component: str) -> dict[str, np.ndarray]:
    checkpoint = Checkpoint(directory)
    return checkpoint.restore_on_host(component, checkpoint.config.networks()[component])


def same_components(one: Path, other: Path, components: Iterable[str]) -> None:
    for component in components:
        expected = params_of(other, component)
        found = params_of(one, component)
        assert found.keys() == expected.keys()
        for path, value in found.items():
            assert value.dtype == expected[path].dtype
            np.testing.assert_array_equal(value, expected[path], err_msg=f"{component}.{path}")


class TestSeveralFiles:
    @pytest.fixture(scope="class")
    def parts(self, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
        """The tiny model's parts as they are published, in bfloat16."""
        folder, whole = tmp_path_factory.mktemp("parts"), layouts.model()
        tensors = {
            "pruned": layouts.without_clip(whole),
            "text": layouts.transformers_text(whole, layers=2),
            "image": layouts.transformers_vision(whole),
            "clip": layouts.open_clip(whole),
            "sketch": layouts.sketch_encoder(),
        }
        return {
            name: layouts.write_safetensors(folder / f"{name}.safetensors", of, "bfloat16")
            for name, of in tensors.items()
        }

    def converted(self, parts: dict[str, Path], names: str, directory: Path) -> Conversion:
        chosen = [parts[name] for name in names.split()]
        report = convert(chosen, directory, tiny(), dtype=ml_dtypes.bfloat16)
        tensors = sum(len(SafetensorsSource(path).shapes) for path in chosen)
        assert report.consumed + report.buffers + len(report.unused) == tensors
        return report

    @pytest.mark.gate
    def test_together_they_are_the_model(
        self,
        parts: dict[str, Path],
        converted: tuple[Path, Conversion, list[tuple[str, int]]],
        tmp_path: Path,
    ) -> None:
        report = self.converted(parts, "pruned text image sketch", tmp_path / "model")
        assert report.components == (*FULL, "sketch_encoder") and report.buffers == 13
        assert converted_from(tmp_path / "model") == [
            f"{name}.safetensors" for name in ("pruned", "text", "image", "sketch")
        ]
        same_components(tmp_path / "model", converted[0], ("clip_text", "clip_image", "decoder", "image_projector"))
        same_as_rule(tmp_path / "model", "sketch_encoder", tiny())

    def test_the_first_file_that_holds_a_component_gives_it(self, parts: dict[str, Path], tmp_path: Path) -> None:
        """As users of other tools hold them: CLIP's text tower apart, and a file with both."""
        with notes.collected() as said:
            report = self.converted(parts, "text clip", tmp_path / "clip")
        assert report.components == ("clip_text", "clip_image")
        assert said[0].startswith(
            f"clip_text is taken from {parts['text']}, and the one in {parts['clip']} is not used"
        )
        assert len(said) == 1 and report.missing == ("unet", "image_projector", "autoencoder", "decoder")
        dropped = [name for name, why in report.unused.items() if why == f"clip_text is taken from {parts['text']}"]
        assert f"{parts['clip']}: token_embedding.weight" in dropped

    def test_a_file_that_gives_nothing_is_refused(self, parts: dict[str, Path], tmp_path: Path) -> None:
        with pytest.raises(UserError, match="there is nothing to convert"):
            convert([], tmp_path / "clip", tiny())
        with pytest.raises(
            UserError, match=f"{parts['text']} gives nothing that {parts['clip']} does not: leave it out"
        ):
            convert([parts["clip"], parts["text"]], tmp_path / "clip", tiny())
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("names", "phrases"),
        [
            (
                "pruned",
                ("lacks CLIP (clip_text, clip_image)", "open_clip_model.safetensors of laion", "tooncrafter convert"),
            ),
            ("pruned text", ("lack CLIP (clip_image)", "h94/IP-Adapter")),
            ("pruned image", ("lack CLIP (clip_text)", "text_encoder/model.safetensors of Stable Diffusion 2.1")),
        ],
    )
    def test_a_model_without_clip_is_told_where_it_is(
        self, parts: dict[str, Path], tmp_path: Path, names: str, phrases: tuple[str, ...]
    ) -> None:
        with pytest.raises(UserError) as error:
            convert([parts[name] for name in names.split()], tmp_path / "model", tiny())
        assert all(phrase in str(error.value) for phrase in phrases), error.value
        assert not list(tmp_path.iterdir())

    def test_without_a_config_parts_take_that_of_the_directory(self, parts: dict[str, Path], tmp_path: Path) -> None:
        convert(parts["text"], tmp_path / "model", tiny())
        convert(parts["image"], tmp_path / "model")
        assert Checkpoint(tmp_path / "model").components == ("clip_text", "clip_image")
        assert Checkpoint(tmp_path / "model").config == tiny()


class TestTowersOfAnotherSize:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"clip_text": ClipTextConfig(width=64, heads=4, layers=5)}, "CLIP text tower of 64 features and 3 blocks"),
            (
                {"clip_image": ClipImageConfig(width=96, heads=4, layers=4)},
                "CLIP image tower of 96 features and 3 blocks",
            ),
        ],
    )
    def test_their_sizes_are_named(self, tmp_path: Path, change: dict[str, Any], message: str) -> None:
        path = layouts.write_safetensors(tmp_path / "clip.safetensors", layouts.open_clip(layouts.model()), "bfloat16")
        with pytest.raises(
            UserError, match=f"{message}, but this model needs one of .* name that of OpenCLIP ViT-H-14"
        ):
            convert(path, tmp_path / "model", replace(tiny(), **change))


class TestRelatives:
    def dynamicrafter(self, path: Path, base_scale: float = 0.7, dtype: str = "float16") -> Path:
        schedule = NoiseSchedule(ScheduleConfig(base_scale=base_scale))
        whole = layouts.with_plain_decoder(layouts.model(schedule=schedule))
        return layouts.write_safetensors(path, whole, dtype)

    def test_a_plain_decoder_is_found_out(self, tmp_path: Path) -> None:
        path = self.dynamicrafter(tmp_path / "dynamicrafter.safetensors")
        with notes.collected() as said:
            report = convert(path, tmp_path / "model", tiny(), dtype=np.float16)
        assert "has DynamiCrafter's plain image decoder" in said[0]
        assert report.components == FULL and report.buffers == 13
        config = Checkpoint(tmp_path / "model").config
        assert config == replace(
            tiny(), decoder=replace(tiny().decoder, temporal=False, references=False, post_quantization=True)
        )
        found = params_of(tmp_path / "model", "decoder")
        dual = tiny_params("decoder")
        assert set(found) - set(dual) == {"post_quantization.kernel", "post_quantization.bias"}
        for path_, value in found.items():
            if path_ in dual:
                np.testing.assert_array_equal(value, np.asarray(dual[path_]).astype(np.float16), err_msg=path_)

    def test_the_model_of_1024_has_another_schedule(self, tmp_path: Path) -> None:
        path = self.dynamicrafter(tmp_path / "dynamicrafter.safetensors", 0.3, "bfloat16")
        with notes.collected() as said:
            convert(path, tmp_path / "model", tiny(), dtype=np.float16)
        assert said[1].endswith("is DynamiCrafter's model of 1024: its dynamic rescale ends at 0.3")
        assert Checkpoint(tmp_path / "model").config.schedule == ScheduleConfig(base_scale=0.3)

    def test_the_published_ones_are_named(self) -> None:
        """From names and shapes alone, at the real size."""
        for base_scale, name, size in (
            (0.7, "dynamicrafter_512", (320, 512)),
            (0.3, "dynamicrafter_1024", (576, 1024)),
        ):
            schedule = NoiseSchedule(ScheduleConfig(base_scale=base_scale))
            with notes.collected():
                found = adapted(ModelConfig(), Listed(layouts.with_plain_decoder(layouts.model(REAL, schedule))))
            assert found.name == name and (found.height, found.width) == size
            assert found.schedule.base_scale == base_scale and found.unet.default_fps == (
                10 if base_scale == 0.3 else 24
            )
            found.check(name)
        assert adapted(ModelConfig(), Listed(layouts.model(REAL))) == ModelConfig()

    def test_a_half_of_the_video_parts_is_a_damaged_file(self, tmp_path: Path) -> None:
        damaged = layouts.model().kept(lambda name: "attn_refinement" not in name)
        path = layouts.write_safetensors(tmp_path / "model.safetensors", damaged, "bfloat16")
        with pytest.raises(UserError, match="missing: decoder.final_reference_residual"):
            convert(path, tmp_path / "model", tiny())

    def test_running_means_are_left_out_and_said(self, tmp_path: Path) -> None:
        bare = layouts.u_net(layouts.model())
        means = bare.renamed({f"model_ema.diffusion_model{name.replace('.', '')}": name for name in bare.shapes})
        both = layouts.joined(bare.prefixed("model.diffusion_model."), means)
        both = both.with_({"model_ema.decay": np.asarray(0.9999), "model_ema.num_updates": np.asarray(7)})
        path = layouts.write_safetensors(tmp_path / "model.safetensors", both, "float16")
        with notes.collected() as said:
            report = convert(path, tmp_path / "model", tiny(), dtype=np.float16)
        assert "holds running means of its training beside its U-Net" in said[0]
        assert report.consumed == 1516 and len(report.unused) == 1518


class TestVariants:
    def test_mog_is_known_by_its_name_and_sampled_as_published(self, files: dict[str, Path], tmp_path: Path) -> None:
        (tmp_path / "ani.ckpt").symlink_to(files["sketch"])  # whatever it holds
        with notes.collected() as said:
            assert variant_of([tmp_path / "ani.ckpt"], None) == VARIANTS["mog"]
        assert "ani.ckpt is taken for a model of mog by its name: --variant=tooncrafter" in said[0]
        assert "EMA-VFI" in said[1] and "RIFE" in said[1]
        assert variant_of([tmp_path / "ani.ckpt"], "tooncrafter").sampling == {}
        with pytest.raises(UserError, match="no variant 'anime': choose one of tooncrafter, mog"):
            variant_of([], "anime")

    @pytest.mark.gate
    def test_its_options_are_stored_and_can_be_sampled_with(self, files: dict[str, Path], tmp_path: Path) -> None:
        with notes.collected():
            convert(files["model"], tmp_path / "mog", tiny(), dtype=np.float16, variant="mog")
            convert(files["sketch"], tmp_path / "mog", dtype=np.float16)
        stored = Checkpoint(tmp_path / "mog").sampling
        assert stored == VARIANTS["mog"].sampling
        options = make_options(stored)
        assert options.motion_guidance and options.steps == 50 and options.guidance_rescale == 0.7
        options.check(tiny())
