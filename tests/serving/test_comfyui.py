"""The node for ComfyUI: called as ComfyUI calls it, in a process that knows nothing of this package."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import sysconfig
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.serving.world import PAIR, SMALL, FakeModel, serving
from tooncrafter_jax import __version__
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.serving import comfyui_node
from tooncrafter_jax.serving.comfyui import FILE, NODE, write_node

COMFY = {
    "utils": """
        shown = []

        class ProgressBar:
            def __init__(self, total):
                self.total = total

            def update_absolute(self, value, total=None, preview=None):
                shown.append((value, total))
    """,
    "model_management": """
        looks_left = None

        def throw_exception_if_processing_interrupted():
            global looks_left
            if looks_left is not None:
                looks_left -= 1
                if looks_left < 0:
                    looks_left = None
                    raise KeyboardInterrupt("the user has stopped it")
    """,
}
"""What the node asks of ComfyUI, if it is there."""
CALLER = """
import importlib.util, json, os, sys
from io import BytesIO

import numpy as np
import torch
from PIL import Image

import comfy.model_management, comfy.utils

assert importlib.util.find_spec("tooncrafter_jax") is None
spec = importlib.util.spec_from_file_location("node", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
(name,) = module.NODE_CLASS_MAPPINGS
node = module.NODE_CLASS_MAPPINGS[name]
urls, told, arrays = json.loads(sys.argv[2]), {"name": module.NODE_DISPLAY_NAME_MAPPINGS[name]}, {}

inputs = {}
for kind, (type, *settings) in [one for part in node.INPUT_TYPES().values() for one in part.items()]:
    if type != "IMAGE":
        inputs[kind] = settings[0]["default"]
for side in ("a", "b"):
    picture = np.asarray(Image.open(f"{side}.png")).astype(np.float32) / 255
    inputs[{"a": "first", "b": "last"}[side]] = torch.from_numpy(picture)[None]
assert node.RETURN_TYPES == ("IMAGE", "MASK") and node.CATEGORY


def call(case, **changes):
    comfy.utils.shown.clear()
    try:
        images, masks = getattr(node(), node.FUNCTION)(**{**inputs, "server": urls["open"], **changes})
    except BaseException as error:
        told[case] = f"{type_of(error)}: {error}"
        return
    assert isinstance(images, torch.Tensor) and images.dtype == masks.dtype == torch.float32
    arrays[case], arrays[f"{case} mask"], told[case] = images.numpy(), masks.numpy(), comfy.utils.shown[-1]
    told["bars"] = told.get("bars", []) + comfy.utils.shown


def type_of(error):
    return error.__class__.__name__


small = dict(width=64, height=64, frames=5, steps=4)
call("defaults")
call("small", seed=7, guidance_scale=5.0, fps=12, options='{"eta": 0.5}', **small)
sketches = torch.ones(2, 64, 64, 3)
sketches[:, 20:24] = 0
call("sketches", sketches=sketches, sketch_frames="1, 3", **small)
call("a frame too few", sketches=sketches, sketch_frames="1", **small)
call("a model that is not there", model="large")
call("an unknown option", options='{"guidance": 3}')
call("a failing clip", seed=666, **small)
call("no server", server="http://127.0.0.1:9")
call("no token", server=urls["closed"])
os.environ[module.TOKEN] = "wrong"
call("a wrong token", server=urls["closed"])
os.environ[module.TOKEN] = urls["token"]
call("the token", server=urls["closed"], **small)
comfy.model_management.looks_left = 2
call("stopped", **small)
asked = {**inputs, "server": urls["open"]}
told["same"] = node.IS_CHANGED(**asked) == node.IS_CHANGED(**{**asked, "seed": 5})
told["other"] = node.IS_CHANGED(**asked) != node.IS_CHANGED(**{**asked, "model": "other"})
gone = node.IS_CHANGED(**{**asked, "server": "http://127.0.0.1:9"})
told["gone"] = gone != gone
module._KEYS[urls["open"], urls["token"]] = "forgotten"
call("a key that the server has forgotten", **small)
np.savez("arrays.npz", **arrays)
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def called(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What the node said and gave in each case."""
    pytest.importorskip("torch", reason="needs the extra 'torch-data'")
    folder = tmp_path_factory.mktemp("comfyui")
    node = write_node(folder / "custom_nodes")
    (folder / "comfy").mkdir()
    for name, text in COMFY.items():
        (folder / "comfy" / f"{name}.py").write_text("\n".join(line[8:] for line in text.splitlines()))
    for name, data in PAIR.items():
        (folder / f"{name}.png").write_bytes(data)
    model = FakeModel(broken_seed=666, seconds=0.15)
    with (
        serving(folder / "open", model, FakeModel("other")) as server,
        serving(folder / "closed", FakeModel(), token=True) as closed,
    ):
        urls = {"open": server.url, "closed": closed.url, "token": closed.access.new_token()}
        environment = {name: value for name, value in os.environ.items() if name != comfyui_node.TOKEN}
        packages = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        done = subprocess.run(
            [sys.executable, "-S", "-c", CALLER, str(node), json.dumps(urls)],  # -S: this package is not found
            cwd=folder,
            env=environment | {"PYTHONPATH": os.pathsep.join(packages)},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        assert server.engine.storage.database.jobs() == []  # each was removed
        client = server.client()
        request = {"first": "a", "last": "b", "seed": 7, "options": SMALL}
        expected = client.frames(client.wait(client.submit(request, PAIR)["id"])["id"])
    arrays = {**np.load(folder / "arrays.npz"), "expected": expected}
    return json.loads(done.stdout.splitlines()[-1]), arrays


@pytest.mark.gate
def test_frames_are_those_of_the_server(called: tuple[dict[str, Any], dict[str, np.ndarray]]) -> None:
    told, arrays = called
    assert told["name"] == "ToonCrafter In-Between" and told["same"] and told["other"] and told["gone"]
    for case in ("defaults", "small", "sketches", "the token", "a key that the server has forgotten"):
        assert case in arrays, told[case]
        images, masks = arrays[case], arrays[f"{case} mask"]
        assert images.ndim == 4 and images.shape[-1] == 3 and masks.shape == images.shape[:3]
        assert images.min() >= 0 and images.max() <= 1 and images.std() > 0.01 and not masks.any()
        assert told[case][0] == told[case][1]  # the bar is full
    assert len(arrays["defaults"]) == 16 and any(0 < done < total for done, total in told["bars"])
    np.testing.assert_array_equal((arrays["small"] * 255).round(), arrays["expected"])


@pytest.mark.gate
@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("a frame too few", "ServerError: there are 2 sketches, but 1 frames"),
        ("a model that is not there", "this server has no model 'large': choose one of tiny, other"),
        ("an unknown option", "did you mean 'guidance_scale'"),
        ("a failing clip", "the frames contain NaN"),
        ("no server", "cannot be reached"),
        ("no token", "needs its token: start ComfyUI with it in TOONCRAFTER_TOKEN"),
        ("a wrong token", "needs its token: the one in TOONCRAFTER_TOKEN is not it"),
        ("stopped", "KeyboardInterrupt: the user has stopped it"),
    ],
)
def test_what_goes_wrong_is_one_sentence(
    called: tuple[dict[str, Any], dict[str, np.ndarray]], case: str, words: str
) -> None:
    assert words in called[0][case] and "\n" not in called[0][case]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"server": "draw.example"}, "is no server"),
        ({"server": "http://["}, "is no server"),
        ({"server": "http://x:99999"}, "is no server"),
        ({"server": "http://x:85l2"}, "is no server"),
        ({"server": "http://user:password@x"}, "no user and no password"),
        ({"options": "{"}, "not JSON"),
        ({"options": "[]"}, "must be an object"),
        ({"sketch_frames": "4, x"}, "must be numbers of frames"),
        ({"sketch_frames": "4 4"}, "names a frame twice"),
    ],
)
def test_what_is_wrong_with_an_input_is_told_before_anything_runs(given: dict[str, str], words: str) -> None:
    said = comfyui_node.ToonCrafterInBetween.VALIDATE_INPUTS(**given)
    assert isinstance(said, str) and words in said
    assert comfyui_node.ToonCrafterInBetween.VALIDATE_INPUTS(**dict.fromkeys(given)) is True  # of another node
    assert comfyui_node.ToonCrafterInBetween.VALIDATE_INPUTS("https://x/y", "", "4, 9") is True


def test_a_token_that_cannot_be_sent_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(comfyui_node.TOKEN, "a\nb")
    with pytest.raises(comfyui_node.ServerError, match="copy it again"):
        comfyui_node.Server("http://localhost:9")
    monkeypatch.setenv(comfyui_node.TOKEN, "a\n")
    with pytest.raises(comfyui_node.Unreachable, match="cannot be reached"):
        comfyui_node.Server("http://localhost:9/ü").json("GET", "/v1/models")


def test_pictures_are_sent_as_they_are() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    with_noise = picture / np.float32(255) + np.float32(1e-4)
    np.testing.assert_array_equal(np.asarray(Image.open(BytesIO(comfyui_node.png(with_noise)))), picture)


def test_the_node_is_written_and_brought_to_this_version(tmp_path: Path) -> None:
    path = write_node(tmp_path / "custom_nodes")
    assert path.name == FILE and path.read_bytes().partition(b"\n")[2] == NODE.read_bytes()
    assert path.read_text().startswith(f"# tooncrafter-jax {__version__} wrote this file")
    first = path.read_bytes()
    assert write_node(tmp_path / "custom_nodes") == path and path.read_bytes() == first
    mark, _, _ = first.partition(b"; sha256")
    older = b"pass\n"
    digest = hashlib.sha256(older).hexdigest().encode()
    path.write_bytes(
        mark.replace(__version__.encode(), b"0.0.1") + b"; sha256 of what follows: " + digest + b"\n" + older
    )
    write_node(tmp_path / "custom_nodes")
    assert path.read_bytes() == first
    path.write_bytes(b"")
    write_node(tmp_path / "custom_nodes")
    assert path.read_bytes() == first


@pytest.mark.parametrize("kind", ["foreign", "edited", "folder", "link"])
def test_what_is_not_ours_is_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / FILE
    if kind == "foreign":
        path.write_text("import torch\n")
    elif kind == "edited":
        write_node(tmp_path)
        path.write_bytes(path.read_bytes() + b"# mine\n")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "elsewhere.py")
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(UserError, match="move it out of this directory"):
        write_node(tmp_path)
    assert (path.read_bytes() if path.is_file() else None) == before and len(list(tmp_path.iterdir())) == 1
