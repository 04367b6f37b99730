"""`tooncrafter sample`: what is written under which name, what is skipped, and that a clip can be made again from its
record.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import jax
import numpy as np
import pytest
from PIL import Image, ImageSequence

from tests.cli.world import SIZE, Command, World, draw, draw_lines, write_folder, write_manifest
from tooncrafter_jax.cli.sample import build_parser
from tooncrafter_jax.io import read_image
from tooncrafter_jax.sampling.batch.jobs import Job, default_name, with_unique_names, with_variations
from tooncrafter_jax.sampling.model_loading import BUNDLED, DEFAULT_MODEL
from tooncrafter_jax.sampling.request import Pair

REPOSITORY = Path(__file__).parents[2]
OFFICIAL_OPTIONS = (
    "savedir ckpt_path config prompt_dir n_samples ddim_steps ddim_eta bs height width frame_stride "
    "unconditional_guidance_scale seed video_length text_input multiple_cond_cfg cfg_img timestep_spacing "
    "guidance_rescale perframe_ae interp loop negative_prompt"
).split()
"""Of the published script (spec section 11.1)."""


def record(world: World, name: str = "ab") -> dict[str, Any]:
    return json.loads((world.out / f"{name}.json").read_text())


def written(world: World) -> set[str]:
    """Names of what a run has written; results of an earlier run are taken away before."""
    return {path.name for path in world.out.iterdir()}


@pytest.fixture
def empty(world: World) -> World:
    for path in world.out.iterdir():
        path.unlink()
    return world


def video_frames(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


# --- help ---


def test_help_names_every_option_of_the_published_script(command: Command, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        command("sample", "--help")
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for option in OFFICIAL_OPTIONS:
        assert re.search(rf"\[[^]]*--{option}\b[^]]*\]", text), option


def test_help_fits_its_lines_and_says_every_default(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    parser = build_parser()
    text = parser.format_help()
    options = text[text.index("what to draw:") : text.index("Of the published")]
    assert max(map(len, options.splitlines())) <= 80
    for action in parser._actions:  # noqa: SLF001 (argparse lists them nowhere else)
        assert action.help, action.option_strings
        if isinstance(action.default, int | float) and not isinstance(action.default, bool):
            assert "(default: " in action.help, action.option_strings


# --- formats ---


@pytest.mark.parametrize(
    ("changes", "files"),
    [
        ([], {"ab.mp4"}),
        (["--out=ab"], {"ab.mp4"}),
        (["--out=ab.gif"], {"ab.gif"}),
        (["--out=AB.WEBP"], {"AB.WEBP"}),
        (["--out=ab", "--format=png"], {"ab"}),
        (["--out=ab.gif", "--format=mp4,webp"], {"ab.gif", "ab.mp4", "ab.webp"}),
        (["--out=ab", "--format=gif, png", "--contact-sheet"], {"ab.gif", "ab", "ab_sheet.png"}),
        (["--out=ab.mp4", "--contact-sheet"], {"ab.mp4", "ab_sheet.png"}),
    ],
)
def test_formats_follow_the_ending_of_out_and_format(
    changes: list[str], files: set[str], empty: World, command: Command
):
    changes = [c.replace("--out=", f"--out={empty.out}/") for c in changes]
    result = command("sample", *empty.pair(*changes))
    assert result.code == 0 and result.err == ""
    stem = "AB" if "AB.WEBP" in files else "ab"
    assert written(empty) == files | {f"{stem}.json"}
    assert {Path(line).name for line in result.out.splitlines()} == written(empty)
    if "ab.mp4" in files:
        assert len(video_frames(empty.out / "ab.mp4")) == 16
    for name in files & {"ab.gif", "ab.webp", "AB.WEBP"}:
        with Image.open(empty.out / name) as animation:
            shown = [frame.info["duration"] for frame in ImageSequence.Iterator(animation) if frame.load()]
            assert (
                sum(shown) == 2000 and len(shown) > 4 and animation.size == (64, 64)
            )  # neighbours that are alike are one
    if "ab" in files:
        assert sorted(p.name for p in (empty.out / "ab").iterdir()) == [f"frame_{i:02d}.png" for i in range(16)]


def test_a_contact_sheet_may_show_the_cross_fade_below(empty: World, command: Command):
    result = command("sample", *empty.pair("--contact-sheet", "--cross-fade"))
    assert result.code == 0
    sheet = np.asarray(Image.open(empty.out / "ab_sheet.png")).astype(int)
    gap, band = 4, 14  # of pictures of 64x64 pixels
    assert sheet.shape == (4 * (band + 64 + gap) + gap, 8 * (64 + gap) + gap, 3)

    def shown(row: int, column: int) -> np.ndarray:
        top, left = gap + row * (band + 64 + gap) + band, gap + column * (64 + gap)
        return sheet[top : top + 64, left : left + 64]

    assert (shown(1, 0) == shown(0, 0)).all() and (shown(3, 7) == shown(2, 7)).all()
    faded = (10 * shown(0, 0) + 5 * shown(2, 7)) / 15
    assert np.abs(shown(1, 5) - faded).max() <= 1
    assert "add --contact-sheet" in command("sample", *empty.pair("--cross-fade")).err
    assert record(empty)["request"]["cross_fade"] is True and command("sample", *empty.pair()).code == 0
    assert record(empty)["request"]["cross_fade"] is False


def test_frames_are_those_of_the_sampler(empty: World, command: Command):
    draw(empty.path / "same.png", 40)
    both = [f"--{end}={empty.path / 'same.png'}" for end in ("first", "last")]
    command("sample", *empty.pair(*both, "--seed=1000", f"--out={empty.out / 'ab'}", "--format=png"))
    original = read_image(empty.path / "same.png")
    for frame in (empty.out / "ab").iterdir():
        assert np.abs(read_image(frame).astype(int) - original).max() <= 1


def test_playback_fps_changes_the_file_and_not_the_request_to_the_model(empty: World, command: Command):
    command("sample", *empty.pair("--playback-fps=24"))
    with av.open(str(empty.out / "ab.mp4")) as container:
        assert container.streams.video[0].average_rate == 24
    assert record(empty)["request"]["fps"] == 10


def test_loop_takes_one_picture_and_drops_the_repeated_frame(empty: World, command: Command):
    argv = [argument for argument in empty.pair("--loop") if not argument.startswith("--last")]
    assert command("sample", *argv).code == 0
    frames = video_frames(empty.out / "ab.mp4")
    assert len(frames) == 15
    request = record(empty)["request"]
    assert request["first"] == request["last"] and request["drop_last"] is True


# --- pictures of all kinds ---


def test_pad_keeps_the_whole_picture(empty: World, command: Command):
    for name in ("first.png", "last.png"):
        Image.new("RGB", (128, 64), "red").save(empty.path / name)
    shown = {}
    for fit in ("crop", "pad"):
        command("sample", *empty.pair(f"--fit={fit}", "--seed=1000", f"--out={empty.out / fit}", "--format=png"))
        shown[fit] = read_image(empty.out / fit / "frame_00.png")
    assert (shown["crop"] == (255, 0, 0)).all()
    assert (shown["pad"][:16] == 255).all() and (shown["pad"][48:] == 255).all()
    assert (shown["pad"][16:48] == (255, 0, 0)).all()


def test_rotated_transparent_and_16_bit_pictures_are_accepted(empty: World, command: Command):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    wide = Image.new("RGB", (64, 32), "blue")
    wide.paste("white", (0, 0, 32, 32))
    wide.save(empty.path / "rotated.png", exif=exif)
    Image.new("RGBA", (32, 64), (0, 0, 0, 0)).save(empty.path / "clear.png")
    Image.fromarray(np.full((32, 64), 30_000, np.uint16)).save(empty.path / "deep.png")
    expected = {"rotated": [(255, 255, 255), (0, 0, 255)], "clear": [(255,) * 3] * 2, "deep": [(117,) * 3] * 2}
    for name, (top, bottom) in expected.items():
        picture = empty.path / f"{name}.png"
        out = [f"--out={empty.out / name}", "--format=png", "--fit=pad", "--seed=1000"]
        assert command("sample", *empty.pair(f"--first={picture}", f"--last={picture}", *out)).code == 0
        frame = read_image(empty.out / name / "frame_00.png").astype(int)
        assert np.abs(frame[24, 32] - top).max() <= 1 and np.abs(frame[40, 32] - bottom).max() <= 1, name


# --- records ---


def arguments_of(request: dict[str, Any], out: Path) -> list[str]:
    """The command line that a record stands for."""
    options = request["options"]
    renamed = {"second_pass": None, "exact_last_step": None}
    argv = [f"--{end}={request[end]['path']}" for end in ("first", "last")]
    argv += [f"--prompt={request['prompt']}", f"--seed={request['seed']}", f"--fps={request['fps']}", f"--out={out}"]
    argv += [
        f"--model={request['model']['path']}",
        f"--dtype={request['dtype']}",
        f"--playback-fps={request['playback_fps']}",
    ]
    argv += [f"--sketch={frame}:{sketch['path']}" for frame, sketch in request["sketches"].items()]
    argv += ["--bright-sketches"] * any(not sketch["dark_lines"] for sketch in request["sketches"].values())
    argv += ["--exact-last-step"] * options["exact_last_step"] + ["--no-second-pass"] * (not options["second_pass"])
    for name, value in options.items():
        if name not in renamed and value is not None:
            argv.append(f"--{name.replace('_', '-')}={value}")
    return [*argv, "--quiet"]


def test_a_record_has_everything_to_make_its_clip_again(empty: World, command: Command):
    draw_lines(empty.path / "sketch.png", paper=0, ink=255)
    unusual = (
        "--prompt=a »cat«",
        "--seed=7",
        "--fps=24",
        "--steps=4",
        "--eta=0.5",
        "--guidance-scale=5",
        "--guidance-rescale=0.2",
        "--image-guidance-scale=2",
        "--spacing=uniform",
        "--exact-last-step",
        "--frames=12",
        "--height=128",
        "--fit=pad",
        "--control-scale=0.9",
        "--no-second-pass",
        "--playback-fps=12",
        "--bright-sketches",
        f"--sketch=7:{empty.path / 'sketch.png'}",
        "--dtype=bfloat16",
    )
    command("sample", *empty.pair(*unusual))
    first = record(empty)
    assert first["request"]["options"]["steps"] == 4 and first["request"]["prompt"] == "a »cat«"
    command("sample", *arguments_of(first["request"], empty.out / "again.mp4"))
    assert record(empty, "again")["request"] == first["request"]
    assert (empty.out / "again.mp4").read_bytes() == (empty.out / "ab.mp4").read_bytes()
    assert first["made_by"]["architecture"] == "tiny" and first["made_by"]["versions"]["jax"] == jax.__version__


def test_a_record_survives_a_file_name_that_is_no_text(empty: World, command: Command):
    name = os.fsdecode(b"caf\xe9.png")
    (empty.path / "first.png").rename(empty.path / name)
    assert command("sample", *empty.pair(f"--first={empty.path / name}")).code == 0
    assert Path(record(empty)["request"]["first"]["path"]).is_file()


# --- folders and manifests ---


def test_a_folder_is_read_as_the_published_script_does(empty: World, command: Command):
    folder = write_folder(empty.path / "folder", 2)
    (folder / ".hidden.png").write_text("no picture")
    (folder / "0_b.png").rename(folder / "0_b.v2.PNG")
    result = command("sample", *empty.folder(folder))
    assert result.code == 0 and "2 made, 0 done before, 0 failed" in result.out
    assert written(empty) == {"0_a.mp4", "0_a.json", "1_a.mp4", "1_a.json"}
    request = record(empty, "0_a")["request"]
    assert request["prompt"] == "prompt 0" and request["last"]["path"].endswith("0_b.v2.PNG")


def test_a_folder_of_loops(empty: World, command: Command):
    folder = write_folder(empty.path / "folder", 2)
    for i in range(2):
        (folder / f"{i}_b.png").unlink()
    assert command("sample", *empty.folder(folder, "--loop")).code == 0
    assert {path.name for path in empty.out.glob("*.mp4")} == {"0_a.mp4", "1_a.mp4"}


def test_what_is_done_is_skipped_and_the_model_not_even_loaded(
    empty: World, command: Command, monkeypatch: pytest.MonkeyPatch
):
    argv = empty.folder(write_folder(empty.path / "folder", 2))
    command("sample", *argv)
    times = {path: path.stat().st_mtime_ns for path in empty.out.iterdir()}

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(empty.model, "load", refuse)
    result = command("sample", *argv)
    assert result.code == 0 and "0 made, 2 done before, 0 failed" in result.out
    assert {path: path.stat().st_mtime_ns for path in empty.out.iterdir()} == times


@pytest.mark.parametrize(
    ("change", "made"),
    [
        (lambda w: ["--steps=3"], 2),
        (lambda w: ["--seed=5"], 2),
        (lambda w: ["--playback-fps=12"], 2),
        (lambda w: ["--dtype=bfloat16"], 2),
        (lambda w: ["--contact-sheet"], 2),
        (lambda w: ["--format=mp4,gif"], 2),
        (lambda w: ["--batch-size=2", "--decode-frames-per-chunk=1"], 0),
        (lambda w: ["--attention=xla"], 0),
        (lambda w: draw(w.path / "folder" / "0_a.png", 77) and [], 1),
        (lambda w: (w.path / "folder" / "prompts.txt").write_text("other\nprompt 1") and [], 1),
        (lambda w: (w.out / "1_a.mp4").unlink() or [], 1),
        (lambda w: [f"--folder={(w.path / 'folder').rename(w.path / 'moved')}"], 0),
    ],
    ids="steps seed playback dtype sheet format batch attention picture prompt lost moved".split(),
)
def test_only_what_has_changed_is_made_again(change: Any, made: int, empty: World, command: Command):
    argv = empty.folder(write_folder(empty.path / "folder", 2))
    command("sample", *argv)
    result = command("sample", *argv, *change(empty))
    assert result.code == 0 and f"{made} made, {2 - made} done before" in result.out


def test_a_clip_in_the_making_leaves_the_earlier_one_whole(
    empty: World, command: Command, monkeypatch: pytest.MonkeyPatch
):
    from tooncrafter_jax.sampling.batch import outputs

    argv = empty.folder(write_folder(empty.path / "folder", 1), "--contact-sheet")
    command("sample", *argv)

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(outputs, "write_contact_sheet", interrupt)
        assert command("sample", *argv, "--seed=5").code == 130
    assert "0 made, 1 done before" in command("sample", *argv).out
    assert "1 made, 0 done before" in command("sample", *argv, "--seed=5").out


def test_batches_and_progress(empty: World, command: Command):
    argv = [a for a in empty.folder(write_folder(empty.path / "folder", 5), "--batch-size=2") if a != "--quiet"]
    result = command("sample", *argv)
    assert empty.model.batches == [2, 2, 2]  # the last one filled with a copy, which is thrown away
    lines = result.err.splitlines()
    assert lines[:5] == [f"{i}_a.png -> {i}_b.png: prompt {i}" for i in range(5)]
    assert [line.split(":")[0] for line in lines[5:]] == [f"{i + 1}/5 {i}_a" for i in range(5)]


def test_bad_pairs_leave_their_places_in_a_batch_to_others(empty: World, command: Command):
    """One size of batch is one program to compile."""
    folder = write_folder(empty.path / "folder", 6)
    for number in (0, 3):
        (folder / f"{number}_a.png").write_bytes(b"no picture")
    result = command("sample", *empty.folder(folder, "--batch-size=2"))
    assert result.code == 1 and "4 made, 0 done before, 2 failed" in result.out
    assert empty.model.batches == [2, 2]
    assert {"1_a.mp4", "2_a.mp4", "4_a.mp4", "5_a.mp4"} <= written(empty)


def test_a_picture_that_goes_while_others_are_made_leaves_its_place(empty: World, command: Command):
    folder = write_folder(empty.path / "folder", 11)
    empty.model.before = lambda number: (folder / "9_a.png").unlink(missing_ok=True)  # far behind what is prepared
    result = command("sample", *empty.folder(folder, "--batch-size=2"))
    assert result.code == 1 and "10 made, 0 done before, 1 failed" in result.out
    assert empty.model.batches == [2] * 5


@pytest.mark.parametrize("change", [["--fps=0"], ["--seed=-1"], ["--height=96"]], ids="fps seed height".split())
def test_no_model_is_loaded_for_pairs_that_are_all_wrong(
    change: list[str], empty: World, command: Command, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        "tooncrafter_jax.sampling.batch.model_source.ModelSource.load", lambda *_: pytest.fail("the model was loaded")
    )
    result = command("sample", *empty.folder(write_folder(empty.path / "folder", 2)), *change)
    assert result.code in (1, 2) and result.errors and empty.model.batches == []


def test_where_no_model_is_named_the_bundled_one_draws(empty: World, command: Command):
    argv = [argument for argument in empty.pair() if not argument.startswith("--model")]
    assert command("sample", *argv).code == 0
    assert record(empty)["request"]["model"]["path"] == str(BUNDLED / DEFAULT_MODEL)


def test_a_model_that_is_not_there_is_told_with_those_that_are(world: World, command: Command):
    result = command("sample", *world.pair(), "--model=large")
    assert result.code == 2 and "tooncrafter convert" in result.err and f"'{DEFAULT_MODEL}'" in result.err


def test_other_weights_in_the_same_directory_make_other_clips(empty: World, command: Command, tmp_path: Path):
    model = Path(shutil.copytree(empty.checkpoint, tmp_path / "model"))
    argv = [*empty.folder(write_folder(empty.path / "folder", 1)), f"--model={model}"]
    command("sample", *argv)
    moved = model.rename(tmp_path / "moved")
    assert "1 done before" in command("sample", *argv, f"--model={moved}").out
    description = json.loads((moved / "model.json").read_text())
    description["weights"]["unet"] = "f" * 16
    (moved / "model.json").write_text(json.dumps(description))
    assert "1 made, 0 done before" in command("sample", *argv, f"--model={moved}").out


def test_only_the_main_process_writes(empty: World, command: Command, monkeypatch: pytest.MonkeyPatch):
    for module in ("sampling.batch.making", "cli.batch_report"):
        monkeypatch.setattr(f"tooncrafter_jax.{module}.is_main_process", lambda: False)
    result = command("sample", *empty.folder(write_folder(empty.path / "folder", 2)))
    assert result.code == 0 and result.out == "" and len(empty.model.batches) == 2
    assert not written(empty)


def test_what_another_process_cannot_read_is_made_by_none(
    empty: World, command: Command, monkeypatch: pytest.MonkeyPatch
):
    """Hosts with other lists would wait for each other for ever."""
    monkeypatch.setattr(
        "tooncrafter_jax.sampling.batch.selection.as_all_processes_say",
        lambda usable: [False, *usable[1:]] if len(usable) == 3 else usable,
    )
    result = command("sample", *empty.folder(write_folder(empty.path / "folder", 3)))
    assert result.code == 1 and "2 made, 0 done before, 1 failed" in result.out
    assert "0_a failed: another process cannot read its pictures" in result.err


def test_some_of_the_flags_for_several_hosts_are_not_enough(world: World, command: Command):
    result = command("sample", *world.pair("--coordinator=a:1"))
    assert result.code == 2 and "belong together" in result.err


def test_quiet_says_nothing_on_the_way(empty: World, command: Command):
    result = command("sample", *empty.folder(write_folder(empty.path / "folder", 2)))
    assert result.err == "" and len(result.out.splitlines()) == 1


def test_paths_of_a_manifest_are_relative_to_it(
    empty: World, command: Command, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
):
    (empty.path / "shots" / "drawings").mkdir(parents=True)
    for name in ("a", "b", "c"):
        draw(empty.path / "shots" / "drawings" / f"{name}.png", ord(name))
    draw_lines(empty.path / "shots" / "drawings" / "d.png")
    lines = [
        {"first": "drawings/a.png", "last": "drawings/b.png", "prompt": "x", "seed": 9, "fps": 20},
        {"first": "drawings/b.png", "last": str(empty.path / "last.png"), "sketches": {"7": "drawings/d.png"}},
        {"first": "drawings/a.png", "last": "drawings/c.png", "name": "c"},
        {"first": "drawings/a.png", "last": "drawings/c.png"},
    ]
    manifest = write_manifest(empty.path / "shots" / "shots.jsonl", *lines)
    manifest.write_bytes(b"\xef\xbb\xbf" + manifest.read_bytes().replace(b"\n", b"\r\n"))
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    arguments = [f"--manifest={manifest}", f"--out={empty.out}", "--prompt=default", "--fps=12", *empty.common]
    result = command("sample", *arguments)
    assert result.code == 0, result.err
    assert {path.stem for path in empty.out.glob("*.mp4")} == {"a", "b", "c", "a_2"}
    request = record(empty, "a")["request"]
    assert (request["prompt"], request["seed"], request["fps"]) == ("x", 9, 20)
    assert request["first"]["path"] == str(empty.path / "shots" / "drawings" / "a.png")
    request = record(empty, "b")["request"]
    assert (request["prompt"], request["seed"], request["fps"]) == ("default", 123, 12)
    assert request["sketches"]["7"]["path"].endswith("drawings/d.png")


def test_samples_per_pair_are_named_as_the_published_script_names_them(empty: World, command: Command):
    command("sample", *empty.pair("--samples-per-pair=3", "--seed=40"))
    names = [f"ab_sample{i}" for i in range(3)]
    assert written(empty) == {f"{name}.{kind}" for name in names for kind in ("mp4", "json")}
    assert [record(empty, name)["request"]["seed"] for name in names] == [40, 41, 42]


def test_names_never_collide():
    pair = Pair("a.png", "b.png")
    jobs = with_unique_names([Job(name, pair) for name in ("a", "a", "a_2", "a")])
    assert [job.name for job in jobs] == ["a", "a_2", "a_2_2", "a_3"]
    many = with_variations(with_unique_names([Job(name, pair) for name in ("a", "a_sample0", "a")]), 2)
    assert len({job.name for job in many}) == 6


@pytest.mark.parametrize(("file", "name"), [("a.png", "a"), ("a.b.png", "a"), (".a.png", "a"), ("..png", "clip")])
def test_clips_are_called_by_their_first_picture_up_to_its_first_dot(file: str, name: str):
    assert default_name(Path("d.x") / file) == name


# --- the real thing ---


@pytest.mark.gate
def test_two_drawings_in_one_video_out(checkpoint: Path, tmp_path: Path):
    for name, value in (("first.png", 20), ("last.png", 60)):
        draw(tmp_path / name, value)
    cache = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    argv = ["--first=first.png", "--last=last.png", "--prompt=walking man", "--out=results/ab.mp4", "--contact-sheet"]
    process = subprocess.run(
        [sys.executable, REPOSITORY / "sample.py", *argv, f"--model={checkpoint}", *SIZE, "--steps=2", "--frames=16"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ
        | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(REPOSITORY)}
        | ({"JAX_COMPILATION_CACHE_DIR": cache} if cache else {}),
    )
    assert process.returncode == 0 and process.stderr == "", process.stderr
    assert process.stdout.split() == ["results/ab.mp4", "results/ab_sheet.png", "results/ab.json"]
    frames = video_frames(tmp_path / "results" / "ab.mp4")
    assert len(frames) == 16 and frames[0].shape == (64, 64, 3)
    assert np.std(frames[8]) > 1, "the clip is blank"
    request = json.loads((tmp_path / "results" / "ab.json").read_text())["request"]
    assert request["first"]["path"] == str(tmp_path / "first.png") and request["dtype"] == "float32"
