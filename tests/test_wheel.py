"""The wheel, installed where there is no checkout: everything is in it, and it draws with the bundled model."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tooncrafter_jax import __version__
from tooncrafter_jax.evaluation.rivals.folder import read_video

pytestmark = pytest.mark.gate
ROOT = Path(__file__).parents[1]
METADATA = ("pyproject.toml", "README.md", "LICENSE", "NOTICE")
PACKAGE = "tooncrafter_jax"


def package_files(directory: Path) -> set[str]:
    found = (directory / PACKAGE).rglob("*")
    return {str(path.relative_to(directory)) for path in found if path.is_file() and "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made from a copy, as setuptools leaves its own files beside the sources; with the setuptools that is there."""
    pytest.importorskip("setuptools", reason="needs the extra 'dev'")
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / PACKAGE, copy / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    for name in METADATA:
        shutil.copy(ROOT / name, copy)
    offline = ("--no-deps", "--no-index", "--no-build-isolation", "--quiet", "--disable-pip-version-check")
    subprocess.run([sys.executable, "-m", "pip", "wheel", str(copy), *offline, f"--wheel-dir={out}"], check=True)
    (found,) = out.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that holds the wheel alone."""
    directory = tmp_path_factory.mktemp("elsewhere") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(directory)], check=True)
    install = ["install", "--no-deps", "--no-index", "--quiet", "--disable-pip-version-check", str(wheel)]
    pip = [sys.executable, "-m", "pip", f"--python={directory / 'bin' / 'python'}"]
    subprocess.run([*pip, *install], check=True)
    return directory / "bin"


def run(program: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs a program with the dependencies of here; .pth files on PYTHONPATH, and so the checkout, do not count."""
    environment = {
        "PATH": f"{program.parent}:/usr/bin:/bin",
        "HOME": str(cwd),
        "PYTHONPATH": sysconfig.get_path("purelib"),
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": os.environ.get("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax")),
    }
    return subprocess.run(
        [str(program), *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=300
    )


def test_the_wheel_holds_the_whole_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    info = f"{PACKAGE}-{__version__}.dist-info"
    assert {name for name in names if not name.startswith(info)} == package_files(ROOT)
    licences = {name.rpartition("/")[2] for name in names if name.startswith(f"{info}/licenses/")}
    assert licences == {"LICENSE", "NOTICE", "bpe_simple_vocab_16e6.LICENSE", "motion.LICENSE"}


def test_the_program_is_there(elsewhere: Path, tmp_path: Path) -> None:
    where = run(elsewhere / "python", "-c", f"import {PACKAGE}; print({PACKAGE}.__file__)", cwd=tmp_path)
    assert where.stdout.startswith(str(elsewhere.parent)), where.stdout + where.stderr
    assert run(elsewhere / "tooncrafter", "--version", cwd=tmp_path).stdout == f"tooncrafter {__version__}\n"
    shown = run(elsewhere / "tooncrafter", "--help", cwd=tmp_path)
    assert shown.returncode == 0 and "\n  sample " in shown.stdout and "\n  train " in shown.stdout


def test_it_draws_with_the_bundled_model(elsewhere: Path, tmp_path: Path) -> None:
    for name in ("first", "last"):
        shutil.copy(ROOT / "examples" / "penguin" / f"{name}.png", tmp_path / f"{name}.png")
    asked = ("--first=first.png", "--last=last.png", "--out=x.mp4")
    made = run(elsewhere / "tooncrafter", "sample", *asked, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {"first.png", "last.png", "x.mp4", "x.json"}
    video = read_video(tmp_path / "x.mp4", 16)
    assert [frame.shape for frame in video] == [(128, 128, 3)] * 16
    assert np.abs(video[0].astype(int) - video[8]).mean() > 1  # it moves
    nothing = run(elsewhere / "tooncrafter", "sample", cwd=tmp_path)  # the examples are the checkout's
    assert nothing.returncode == 2 and nothing.stderr.startswith("error: give one of --first")
