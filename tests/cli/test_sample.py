"""`tooncrafter sample`: what is written under which name, what is skipped, and that a clip can be made again from its
record.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import jax
import numpy as np
import pytest
from PIL import Image, ImageSequence

from tests.cli.world import SIZE, Command, World, draw, draw_lines
from tooncrafter_jax.cli.sample import build_parser
from tooncrafter_jax.io import read_image

REPOSITORY = Path(__file__).parents[2]
OFFICIAL_OPTIONS = (
    "savedir ckpt_path config prompt_dir n_samples ddim_steps ddim_eta bs height width frame_stride "
    "unconditional_guidance_scale seed video_length text_input multiple_cond_cfg cfg_img timestep_spacing "
    "guidance_rescale perframe_ae interp loop negative_prompt"
).split()
"""Of the published script (spec section 11.1)."""


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
    assert empty.written == files | {f"{stem}.json"}
    assert {Path(line).name for line in result.out.splitlines()} == empty.written
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
    assert empty.record()["request"]["cross_fade"] is True and command("sample", *empty.pair()).code == 0
    assert empty.record()["request"]["cross_fade"] is False


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
    assert empty.record()["request"]["fps"] == 10


def test_loop_takes_one_picture_and_drops_the_repeated_frame(empty: World, command: Command):
    argv = [argument for argument in empty.pair("--loop") if not argument.startswith("--last")]
    assert command("sample", *argv).code == 0
    frames = video_frames(empty.out / "ab.mp4")
    assert len(frames) == 15
    request = empty.record()["request"]
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
    argv = [f"--{end}={request[end]['path']}" for end in ("first", "last")]
    argv += [f"--prompt={request['prompt']}", f"--seed={request['seed']}", f"--fps={request['fps']}", f"--out={out}"]
    argv += [
        f"--model={request['model']['path']}",
        f"--dtype={request['dtype']}",
        f"--playback-fps={request['playback_fps']}",
    ]
    argv += [f"--sketch={frame}:{sketch['path']}" for frame, sketch in request["sketches"].items()]
    argv += ["--bright-sketches"] * any(not sketch["dark_lines"] for sketch in request["sketches"].values())
    for name, value in options.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            argv.append(f"--{flag}" if value else f"--no-{flag}")
        elif value is not None:
            argv.append(f"--{flag}={value}")
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
    first = empty.record()
    assert first["request"]["options"]["steps"] == 4 and first["request"]["prompt"] == "a »cat«"
    again = command("sample", *arguments_of(first["request"], empty.out / "again.mp4"))
    assert again.code == 0, again.err
    assert empty.record("again")["request"] == first["request"]
    assert (empty.out / "again.mp4").read_bytes() == (empty.out / "ab.mp4").read_bytes()
    assert first["made_by"]["architecture"] == "tiny" and first["made_by"]["versions"]["jax"] == jax.__version__


def test_a_record_survives_a_file_name_that_is_no_text(empty: World, command: Command):
    name = os.fsdecode(b"caf\xe9.png")
    (empty.path / "first.png").rename(empty.path / name)
    assert command("sample", *empty.pair(f"--first={empty.path / name}")).code == 0
    assert Path(empty.record()["request"]["first"]["path"]).is_file()


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
