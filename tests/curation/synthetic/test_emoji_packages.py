"""Fetching the packages: once, whole, and checked; with a stand-in for npm."""

import hashlib
import os
import stat
import tarfile

import pytest

from tests.curation.synthetic.emoji_files import write_package
from tooncrafter_jax.curation.synthetic import emoji_packages
from tooncrafter_jax.curation.synthetic.emoji_packages import fetch_packages, list_assets
from tooncrafter_jax.errors import UserError


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """A program `npm` that copies archives from a folder and notes its calls; returns the file of notes."""
    archives, programs, notes = tmp_path / "archives", tmp_path / "bin", tmp_path / "notes"
    archives.mkdir()
    programs.mkdir()
    digests = {}
    for number, name in enumerate(["1f3c3", "1f680"]):
        package = f"emoji-{number}"
        folder = write_package(tmp_path / package, {name: {"frames": 2}})
        archive = archives / f"lobehub-{package}-1.0.0.tgz"
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(folder / "package", "package")
        digests[package] = hashlib.sha256(archive.read_bytes()).hexdigest()
    program = programs / "npm"
    program.write_text(
        f'#!/bin/sh\necho "$2" >> {notes}\nname=${{2#@lobehub/}}\n'
        f"archive={archives}/lobehub-${{name%@*}}-${{name#*@}}.tgz\n"
        'test -f $archive || { echo "npm error code E404" >&2; exit 1; }\ncp $archive .\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}/usr/bin:/bin")
    monkeypatch.setattr(emoji_packages, "PACKAGES", digests)
    return notes


def test_packages_are_fetched_once(npm, tmp_path):
    cache = tmp_path / "cache"
    folders = fetch_packages(cache)
    assert [asset.name for asset in list_assets(folders)] == ["1f3c3", "1f680"]
    assert fetch_packages(cache) == folders
    assert npm.read_text().split() == ["@lobehub/emoji-0@1.0.0", "@lobehub/emoji-1@1.0.0"]
    assert not list(cache.glob(".*"))


def test_after_an_interruption_only_the_missing_is_fetched(npm, tmp_path):
    cache = tmp_path / "cache"
    (tmp_path / "archives" / "lobehub-emoji-1-1.0.0.tgz").rename(tmp_path / "away.tgz")
    with pytest.raises(UserError, match=r"could not fetch @lobehub/emoji-1@1.0.0 \(code E404\)"):
        fetch_packages(cache)
    (tmp_path / "away.tgz").rename(tmp_path / "archives" / "lobehub-emoji-1-1.0.0.tgz")
    (cache / "emoji-1-1.0.0").mkdir()  # a folder without the mark of being complete
    (cache / "emoji-1-1.0.0" / "half").touch()
    folders = fetch_packages(cache)
    assert npm.read_text().split().count("@lobehub/emoji-0@1.0.0") == 1
    assert not (folders[1] / "half").exists() and len(list_assets(folders)) == 2


def test_another_archive_than_expected_is_refused(npm, tmp_path, monkeypatch):
    monkeypatch.setitem(emoji_packages.PACKAGES, "emoji-0", "0" * 64)
    with pytest.raises(UserError, match="another 'lobehub-emoji-0-1.0.0.tgz' than is expected"):
        fetch_packages(tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_an_archive_that_leaves_its_folder_is_refused(npm, tmp_path, monkeypatch):
    archive = tmp_path / "archives" / "lobehub-emoji-0-1.0.0.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(npm.parent / "bin", "../outside")
    monkeypatch.setitem(emoji_packages.PACKAGES, "emoji-0", hashlib.sha256(archive.read_bytes()).hexdigest())
    with pytest.raises(UserError, match="cannot be unpacked"):
        fetch_packages(tmp_path / "cache")
    assert not (tmp_path / "cache" / "outside").exists()


def test_missing_npm_is_reported(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="needs npm, which is not installed"):
        fetch_packages(tmp_path / "cache")


def test_a_cache_that_cannot_be_written_is_reported(npm, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        fetch_packages(tmp_path / "file" / "cache")


def test_the_first_folder_wins_and_other_files_are_passed_over(tmp_path):
    one = write_package(tmp_path / "one", {"1f3c3": {"frames": 2}})
    other = write_package(tmp_path / "other", {"1f3c3": {"frames": 1}, "1f34e": {"frames": 1}})
    (one / "package" / "assets" / "readme.webp").write_bytes(b"")
    (one / "package" / "assets" / ".gitkeep").touch()
    assets = list_assets([one, other / "package" / "assets"])
    assert [(asset.name, asset.animated) for asset in assets] == [("1f34e", False), ("1f3c3", True)]
    assert assets[1].path.startswith(str(one))
