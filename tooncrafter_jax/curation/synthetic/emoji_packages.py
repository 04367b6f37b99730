"""The four npm packages of the animated Fluent emoji: fetched once, checked, unpacked, and listed."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import struct
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tooncrafter_jax.curation.synthetic.emoji_names import EmojiName, code_points, name_emoji
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.atomic_files import cannot_write

VERSION = "1.0.0"
PACKAGES = {
    "fluent-emoji-anim-1": "4c03ac178c1eabf2e2a16dd498f3cc2b92dc30ec3466ae38fdc497d4774c99ea",
    "fluent-emoji-anim-2": "e431da8172e394036c330faa77648d6fbbae1fd3b0be95637c4497c9075019c0",
    "fluent-emoji-anim-3": "3624d0c34c819c1794b74ccf6ae9034adff7c4cb6318dd2a645145f0196feb43",
    "fluent-emoji-anim-4": "3d4c08f1e321f70808ef4996aba0ab575a9d97b6c56ffffc92cf6161a7836aa3",
}
"""Packages of @lobehub (MIT, after microsoft/fluentui-emoji-animated) and the SHA-256 of their archives at
`VERSION`.
"""

_DONE = "complete"  # a file that is there once a package is unpacked
_FETCH_SECONDS = 1800


@dataclasses.dataclass(frozen=True)
class Asset:
    """One emoji's file.

    Attributes:
      name: the file's name without extension: code points in hexadecimal digits.
      path: where it is.
      emoji: what it shows.
      animated: whether it has more than one frame.
      num_bytes: size of the file.
    """

    name: str
    path: str
    emoji: EmojiName
    animated: bool
    num_bytes: int


def cache_directory() -> Path:
    """Where the packages are kept: `$XDG_CACHE_HOME/tooncrafter_jax/fluent_emoji`, by default below `~/.cache`.

    Raises:
      UserError: there is no home directory.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tooncrafter_jax" / "fluent_emoji"
    except RuntimeError as error:
        raise UserError("no home directory is known to keep the emoji in: name a cache directory") from error


def fetch_packages(cache: Path) -> list[Path]:
    """The folders of the four packages, fetched with `npm pack` (about 730 MB) where the cache has them not.

    A package is in the cache or it is not, whenever this is interrupted; what is there already is not fetched again.

    Raises:
      UserError: npm is missing or fails, an archive is not the one expected, or the cache cannot be written.
    """
    return [_fetch(name, digest, cache) for name, digest in PACKAGES.items()]


def list_assets(folders: Sequence[Path]) -> list[Asset]:
    """The WebP files in the folders, by name; of two of one name the first folder's.

    Args:
      folders: an unpacked package (which has `package/assets` or `assets` inside), or a folder with the files
        themselves.

    Raises:
      UserError: a folder is missing or has no such files.
    """
    assets: dict[str, Asset] = {}
    for folder in folders:
        found = _assets_of(folder)
        if not found:
            what = "has no WebP files named by code points" if folder.is_dir() else "is not a folder"
            raise UserError(f"'{folder}' {what}: give the folders that the packages of the emoji were unpacked into")
        assets = {asset.name: asset for asset in found} | assets
    return [assets[name] for name in sorted(assets)]


def _assets_of(folder: Path) -> list[Asset]:
    for inside in (folder / "package" / "assets", folder / "assets", folder):
        if inside.is_dir():
            return [asset for path in sorted(inside.glob("*.webp")) if (asset := _asset(path))]
    return []


def _asset(path: Path) -> Asset | None:
    try:
        emoji = name_emoji(code_points(path.stem))
        with open(path, "rb") as file:
            header = file.read(21)
        return Asset(path.stem, os.fspath(path), emoji, _is_animated(header), path.stat().st_size)
    except ValueError:  # not named by code points
        return None
    except OSError as error:
        raise UserError(f"'{path}' cannot be read ({error.strerror}): unpack the package again") from error


def _is_animated(header: bytes) -> bool:
    """Whether a WebP file starting so is an animation: the flag in its extended header (RFC 9649, section 2.7)."""
    if len(header) < 21 or header[:4] != b"RIFF" or header[8:16] != b"WEBPVP8X":
        return False
    return bool(struct.unpack("B", header[20:21])[0] & 0x02)


def _fetch(name: str, digest: str, cache: Path) -> Path:
    folder = cache / f"{name}-{VERSION}"
    if (folder / _DONE).is_file():
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=cache) as temporary:
            archive = _npm_pack(name, Path(temporary))
            _check(archive, digest)
            unpacked = Path(temporary) / "unpacked"
            _unpack(archive, unpacked)
            (unpacked / _DONE).touch()
            _put(unpacked, folder)
    except OSError as error:
        raise cannot_write(os.fspath(error.filename or cache), error) from error
    return folder


def _npm_pack(name: str, directory: Path) -> Path:
    package = f"@lobehub/{name}@{VERSION}"
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(
            f"fetching the emoji needs npm, which is not installed: install Node.js, or unpack {package} and its "
            "fellows yourself and give their folders"
        )
    command = [npm, "pack", package, "--ignore-scripts", "--loglevel=error"]
    try:
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=_FETCH_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise UserError(f"npm did not fetch {package} in {_FETCH_SECONDS // 60} minutes: try again") from error
    archives = list(directory.glob("*.tgz"))
    if done.returncode or len(archives) != 1:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[0].removeprefix("npm error ")
        raise UserError(f"npm could not fetch {package} ({said}): check the network, or give unpacked folders")
    return archives[0]


def _check(archive: Path, digest: str) -> None:
    with open(archive, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != digest:
            raise UserError(f"npm fetched another '{archive.name}' than is expected: clear npm's cache and try again")


def _unpack(archive: Path, directory: Path) -> None:
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(directory, filter="data")
    except tarfile.TarError as error:
        raise UserError(f"'{archive.name}' cannot be unpacked ({error}): try again") from error


def _put(unpacked: Path, folder: Path) -> None:
    """Moves the package into its place, unless another process has been faster."""
    try:
        os.rename(unpacked, folder)
    except OSError:
        if not (folder / _DONE).is_file():
            shutil.rmtree(folder, ignore_errors=True)  # left by something else: it has no mark of being complete
            os.rename(unpacked, folder)
