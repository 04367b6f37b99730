"""Where compiled programs are kept, and which of several processes find them again."""

from __future__ import annotations

import importlib
import json
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import pytest

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.runtime import compilation_cache

ROOT = Path(__file__).parents[2]

_PROGRAM = """
    import json, sys
    import jax, jax.numpy as jnp, numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec
    from tooncrafter_jax.runtime.compilation_cache import enable_compilation_cache
    port, process, directory = sys.argv[1], int(sys.argv[2]), sys.argv[3] or None
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, process)
    enable_compilation_cache(directory)
    found = []
    jax.monitoring.register_event_listener(lambda name, **_: found.append(name))
    rows = NamedSharding(Mesh(np.asarray(jax.devices()), ("data",)), PartitionSpec("data"))
    x = jax.make_array_from_callback((8,), rows, lambda index: np.arange(8.0)[index])
    total = float(jax.jit(lambda x: jnp.sum(jnp.sin(x) ** 2))(x))
    kept = jax.config.jax_compilation_cache_dir
    hits = sum(name.endswith("cache_hits") for name in found)
    asked = sum(name.endswith("compile_requests_use_cache") for name in found)
    print(json.dumps({"hits": hits, "asked": asked, "total": total, "directory": kept}))
"""


def two_processes(directory: str, home: Path) -> list[tuple[dict, str]]:
    """What two processes of one run print, and what they say on standard error."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_COMPILATION")}
    environment |= {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(home)}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(_PROGRAM), port, str(number), directory],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in (0, 1)
    ]
    reports = [process.communicate(timeout=300) for process in running]
    assert [process.returncode for process in running] == [0, 0], reports
    return [(json.loads(out.splitlines()[-1]), errors) for out, errors in reports]


@pytest.mark.gate
def test_a_shared_directory_is_where_every_process_looks(tmp_path):
    """What the first process finds in the next run; the others of a CPU do not, whose key for a program names the
    process.
    """
    shared = str(tmp_path / "shared" / "cache")
    first, second = two_processes(shared, tmp_path), two_processes(shared, tmp_path)
    assert [report["hits"] for report, _ in first] == [0, 0]
    assert second[0][0]["hits"] > 0
    assert all(report["directory"] == shared and report["asked"] > 0 for report, _ in (*first, *second))
    assert len({report["total"] for report, _ in (*first, *second)}) == 1
    assert not any("note:" in errors for _, errors in (*first, *second))


@pytest.mark.gate
def test_a_home_of_the_first_host_is_reported(tmp_path):
    (report, errors), (_, others) = two_processes("", tmp_path)
    assert report["directory"] == str(tmp_path / "tooncrafter_jax" / "xla")
    assert errors.count("note: compiled programs are kept in") == 1 and "--compilation-cache" in errors
    assert "note:" not in others


@pytest.fixture
def chosen(monkeypatch):
    """What is set of JAX's configuration, which stays as it is."""
    found = {}
    monkeypatch.setattr(jax.config, "update", found.__setitem__)
    return found


def test_the_option_comes_before_the_environment(chosen, tmp_path, monkeypatch):
    assert jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    compilation_cache.enable_compilation_cache()
    assert not chosen, "what the user has chosen for all JAX programs stays"
    monkeypatch.chdir(tmp_path)
    compilation_cache.enable_compilation_cache("here")
    assert chosen == {"jax_compilation_cache_dir": str(tmp_path / "here")} and (tmp_path / "here").is_dir()


@pytest.mark.parametrize(("directory", "reason"), [("file/below", "Not a directory"), ("nosuch://bucket/x", "")])
def test_a_directory_that_cannot_be_used_is_reported(chosen, tmp_path, monkeypatch, directory, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=f"--compilation-cache={directory} cannot be used .*{reason}.*name a directory"):
        compilation_cache.enable_compilation_cache(directory)
    assert not chosen


@pytest.mark.parametrize("command", ["train", "sample", "evaluate", "verify"])
def test_commands_have_the_option(command, capsys):
    with pytest.raises(SystemExit):
        importlib.import_module(f"tooncrafter_jax.cli.{command}").main(["--help"])
    assert "--compilation-cache DIR" in capsys.readouterr().out
