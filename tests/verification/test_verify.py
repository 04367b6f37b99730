"""`tooncrafter verify` on the stored folder, on altered copies and on broken ones."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.verification.folders import TINY
from tooncrafter_jax.cli import common
from tooncrafter_jax.cli.verify import main
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.verification.comparison import Row
from tooncrafter_jax.verification.folder import Folder
from tooncrafter_jax.verification.model import VerifiedModel
from tooncrafter_jax.verification.report import summary
from tooncrafter_jax.verification.run import verify
from tooncrafter_jax.weights.rule import make

QUICK = ["timestep_embedding.npz", "schedule.npz", "ddim_step.npz"]


@pytest.fixture
def small(tmp_path):
    """A copy of the stored folder with the files that take no network; returns its path and a way to change its
    manifest.
    """
    manifest = json.loads((TINY / "manifest.json").read_text())
    manifest["arrays"] = {file: manifest["arrays"][file] for file in QUICK}
    used = {e["case"] for entries in manifest["arrays"].values() for e in entries.values() if e["role"] == "output"}
    manifest["cases"] = {id: case for id, case in manifest["cases"].items() if id in used}
    for file in [*QUICK, "config.json", "keys.tsv", "sketch_keys.tsv"]:
        shutil.copy(TINY / file, tmp_path / file)

    def change(alter=lambda manifest: None):
        alter(manifest)
        (tmp_path / "manifest.json").write_text(json.dumps(manifest))
        return tmp_path

    change()
    return change


def rewrite(folder, file, **changed):
    with np.load(folder / file) as stored:
        arrays = {key: stored[key] for key in stored.files}
    np.savez(folder / file, **{**arrays, **changed})


def run(capsys, *argv):
    status = common.run(main, [*map(str, argv), "--quiet"])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture(scope="session")
def stored_rows() -> list[Row]:
    return verify(Folder(TINY))


@pytest.mark.gate
def test_the_published_command_lines_pipeline():
    """One whole sample, the slice of the folder that stands for all in a fast run."""
    rows = [
        row for row in verify(Folder(TINY), only="pipeline_inference/main") if row.operation == "pipeline_inference"
    ]
    assert {row.key for row in rows} >= {"latents_after_step", "frames_7_8", "text_context", "decode14_frames_0_13"}
    assert not [row for row in rows if row.verdict == "FAIL"]


@pytest.mark.slow
def test_every_stored_number(stored_rows):
    """Tolerances: see `operations`. The worst of the reference's own noise is 4e-5, of the encoder's hidden states."""
    wrong = [row for row in stored_rows if row.verdict == "FAIL"]
    assert not wrong, "\n".join(f"{row.file}:{row.key} {row.max_rel} > {row.tolerance} {row.note}" for row in wrong)
    folder = Folder(TINY)
    assert [(row.file, row.key) for row in stored_rows] == [(entry.file, entry.key) for entry in folder.entries]
    text = "\n".join(summary(folder, stored_rows))
    assert f"all {len(folder.entries)} arrays" in text
    assert "compared 220 outputs" in text


@pytest.mark.slow
def test_networks_are_far_below_their_tolerance(stored_rows):
    """Two correct implementations in float32 differ by about 1e-5; an error of a formula is a hundred times larger."""
    networks = [row for row in stored_rows if row.operation in ("unet", "unet_with_control", "decoder", "losses")]
    assert max(row.max_rel or 0.0 for row in networks) < 2e-5
    steps = [row for row in stored_rows if row.key == "latents_after_step"]
    assert len(steps) == 4
    assert max(row.max_rel or 0.0 for row in steps) < 1e-4


def test_a_folder_that_passes(small, capsys, tmp_path):
    status, out, _ = run(capsys, small(), "--json", tmp_path / "table.json")
    assert status == 0
    assert f"all {len(Folder(small()).entries)} arrays in all 3 array files" in out
    table = json.loads((tmp_path / "table.json").read_text())
    assert table["passed"] and not table["left_out"]
    assert len(table["rows"]) == table["arrays"]


def test_a_file_of_something_else_is_not_replaced_by_the_table(small, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(
        "tooncrafter_jax.verification.run.verify", lambda *_, **__: pytest.fail("something was computed")
    )
    (tmp_path / "mine.json").write_text('{"mine": 1}')
    status, _, err = run(capsys, small(), "--json", tmp_path / "mine.json")
    assert status == 2 and "holds something else" in err
    assert (tmp_path / "mine.json").read_text() == '{"mine": 1}'


@pytest.mark.parametrize("where", ["", "manifest.json/table.json"])
def test_a_table_that_cannot_be_written_is_found_before_anything_is_computed(small, capsys, monkeypatch, where):
    """`""` is the folder itself; the other takes a file for a folder."""
    monkeypatch.setattr(
        "tooncrafter_jax.verification.run.verify", lambda *_, **__: pytest.fail("something was computed")
    )
    status, out, err = run(capsys, small(), "--json", small() / where)
    assert status == 2 and not out
    assert err.count("\n") == 1 and ("is a directory: name the file" in err or "cannot be written" in err)


def test_line_breaks_in_a_message_stay_within_one_line(small, capsys):
    status, _, err = run(capsys, small() / "no\nwhere")
    assert status == 2 and err.count("\n") == 1


def test_compiled_programs_are_kept(small, capsys, monkeypatch):
    enabled = []
    monkeypatch.setattr("tooncrafter_jax.cli.verify.enable_compilation_cache", enabled.append)
    run(capsys, small(), "--only", "timestep_embedding/*")
    run(capsys, small(), "--only", "timestep_embedding/*", "--compilation-cache=elsewhere")
    assert enabled == [None, "elsewhere"]


def test_a_wrong_number_exits_1(small, capsys):
    folder = small()
    with np.load(folder / "ddim_step.npz") as stored:
        wrong = stored["cfg_rescaled"].copy()
    wrong[1, 2, 0, 3, 4] += 1e-3
    rewrite(folder, "ddim_step.npz", cfg_rescaled=wrong)
    status, out, _ = run(capsys, folder)
    assert status == 1
    assert "FAILED: 1 arrays" in out
    assert sum(line.startswith("cfg_rescaled") and "FAIL" in line for line in out.splitlines()) == 1


def test_another_config_than_the_numbers_exits_1(small, capsys):
    folder = small()
    config = json.loads((folder / "config.json").read_text())
    config["diffusion"]["linear_end"] = 0.0121
    (folder / "config.json").write_text(json.dumps(config))
    status, out, _ = run(capsys, folder, "--only", "schedule/buffers")
    assert status == 1
    assert "NOT all" in out


def test_only_selects(small, capsys):
    status, out, _ = run(capsys, small(), "--only", "timestep_embedding/*")
    assert status == 0
    assert "dim33" in out and "cfg_rescaled" not in out
    assert "NOT all" in out


def test_a_result_of_another_shape_fails(small, capsys):
    def alter(manifest):
        manifest["cases"]["timestep_embedding/33"]["settings"]["dim"] = 34

    status, out, _ = run(capsys, small(alter), "--only", "timestep_embedding/33")
    assert status == 1
    assert "shape [7, 34], not [7, 33]" in out


def test_a_case_that_our_code_cannot_compute_fails(small, capsys):
    def alter(manifest):
        manifest["cases"]["guidance/plain"]["inputs"]["uncond"] = {"zeros": [2, 4, 3, 8, 16]}

    status, out, _ = run(capsys, small(alter), "--only", "ddim_step.npz")
    assert status == 1
    assert "Error" in out and "FAILED: 1 arrays" in out


def _entry(manifest):
    return manifest["arrays"]["ddim_step.npz"]["cfg"]


BROKEN = {
    "has the operation 'unett', which is unknown": lambda m: m["cases"]["guidance/plain"].update(operation="unett"),
    "lacks the input 'uncond'": lambda m: m["cases"]["guidance/plain"]["inputs"].pop("uncond"),
    "lacks the setting 'scale'": lambda m: m["cases"]["guidance/plain"]["settings"].pop("scale"),
    "has no result 'outt'": lambda m: _entry(m).update(result="outt"),
    "belongs to the case 'nobody'": lambda m: _entry(m).update(case="nobody"),
    "is neither an input nor an output": lambda m: _entry(m).update(role="other"),
    r"has the shape \[2, 4, 2, 8, 16\], not \[1\]": lambda m: _entry(m).update(shape=[1]),
    "is float32, not float64": lambda m: _entry(m).update(dtype="float64"),
    "which its file does not hold": lambda m: m["arrays"]["ddim_step.npz"].update(more={"role": "input"}),
    "ddim_step.npz:cfg, which .* does not list": lambda m: m["arrays"]["ddim_step.npz"].pop("cfg"),
    "absent.npz is missing": lambda m: m["arrays"].update({"absent.npz": {}}),
    "has the format 2": lambda m: m.update(format=2),
    "has no section 'cases'": lambda m: m.pop("cases"),
    "refers to the array 'no.npz:x'": lambda m: m["cases"]["timestep_embedding/33"]["inputs"].update(
        timesteps={"array": "no.npz:x"}
    ),
    "needs its own result": lambda m: m["cases"]["guidance/plain"]["inputs"].update(
        cond={"case": "guidance/plain", "result": "out"}
    ),
}


@pytest.mark.parametrize("message", BROKEN)
def test_broken_manifests_exit_2_with_one_sentence(small, capsys, message):
    status, _, err = run(capsys, small(BROKEN[message]))
    assert status == 2
    assert err.startswith("error: ") and err.count("\n") == 1
    with pytest.raises(UserError, match=message):
        verify(Folder(small()))


@pytest.mark.parametrize(
    ("file", "contents", "message"),
    [
        ("config.json", None, "config.json is missing"),
        ("ddim_step.npz", None, "ddim_step.npz is missing"),
        ("manifest.json", None, "manifest.json is missing"),
        ("keys.tsv", None, "keys.tsv is missing"),
        ("manifest.json", b"{", "is not valid JSON"),
        ("config.json", b"[]", "must hold an object"),
        ("ddim_step.npz", b"PK but no archive", "is damaged"),
        ("keys.tsv", b"betas\n", "line 1 of"),
        ("keys.tsv", b"who.knows\t3\tfloat32\n", "belongs to no component"),
        ("keys.tsv", b"betas\t999\tfloat32\n", "lists betas with the shape"),
    ],
)
def test_broken_files_exit_2_with_one_sentence(small, capsys, file, contents, message):
    folder = small()
    (folder / file).unlink()
    if contents is not None:
        (folder / file).write_bytes(contents)
    status, _, err = run(capsys, folder)
    assert status == 2
    assert message in err and err.count("\n") == 1


def test_no_folder_and_no_match(small, capsys, tmp_path):
    assert run(capsys, tmp_path / "nowhere")[0] == 2
    assert run(capsys, small(), "--only", "nothing like this")[0] == 2
    assert run(capsys, small(), "--dtype", "int8")[0] == 2


def test_folders_without_networks_need_no_key_table(small, capsys):
    folder = small(lambda manifest: manifest.pop("keys"))
    assert run(capsys, folder)[0] == 0


def test_weights_of_a_file_replace_the_rule(tmp_path, small):
    folder = small()
    table = Folder(folder).key_table("model") or {}
    projector = {name: shape for name, shape in table.items() if name.startswith("image_proj_model.")}
    (folder / "keys.tsv").write_text("".join(f"{n}\t{','.join(map(str, s))}\tfloat32\n" for n, s in projector.items()))
    by_rule = VerifiedModel(Folder(folder)).params("image_projector")["image_projector"]
    save_file({name: 2 * make(name, shape) for name, shape in projector.items()}, folder / "weights.safetensors")
    stored = VerifiedModel(Folder(folder)).params("image_projector")["image_projector"]
    for path, value in stored.items():
        np.testing.assert_array_equal(value, 2 * by_rule[path])
    name = next(iter(projector))
    save_file({name: make(name, projector[name])}, folder / "weights.safetensors")
    with pytest.raises(UserError, match="lack 28 tensors"):
        VerifiedModel(Folder(folder))
