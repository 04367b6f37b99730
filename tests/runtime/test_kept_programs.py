"""A second process, and here a second function, calls a program without tracing it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tooncrafter_jax.runtime import kept_programs
from tooncrafter_jax.runtime.kept_programs import KeptFunction, keep_programs
from tooncrafter_jax.runtime.quick_compilation import quick_options


class Pair(NamedTuple):
    """A structure of our own among arguments and results."""

    first: Any
    second: Any


class Traced:
    """A function that counts how often it is traced."""

    def __init__(self, identity: str = "", donate: bool = False) -> None:
        self.count = 0

        def double(x: Pair, y: Any = None, *, times: int = 2) -> Pair:
            self.count += 1
            return Pair(times * x.first, None if y is None else {"sum": x.first.sum() + y})

        jitted = jax.jit(double, static_argnames="times", donate_argnames="x" if donate else None)
        self.kept = KeptFunction(jitted, ("times",), identity)

    def __call__(self, *args: Any, **kw: Any) -> Any:
        return self.kept(*args, **kw)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """Where programs are kept, without JAX's own cache: on a busy machine that takes programs as small as these, which
    are then not kept.
    """
    before: str | None = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    keep_programs(tmp_path / "programs")
    yield tmp_path / "programs"
    keep_programs(None)
    jax.config.update("jax_compilation_cache_dir", before)
    compilation_cache.reset_cache()


def test_a_program_is_traced_once(directory: Path) -> None:
    x = Pair(jnp.arange(4.0), None)
    one, other = Traced(), Traced()
    for function in (one, one, other):
        found = function(x, np.float32(1), times=3)
        np.testing.assert_array_equal(found.first, [0, 3, 6, 9])
        assert found.second["sum"] == 7.0
    assert (one.count, other.count) == (1, 0)
    assert len(list(directory.iterdir())) == 1 and directory.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda function: function(Pair(jnp.arange(5.0), None)),
        lambda function: function(Pair(jnp.arange(4), None)),
        lambda function: function(Pair(jnp.arange(4.0), None), np.float32(1)),
        lambda function: function(Pair(jnp.arange(4.0), None), times=5),
        lambda function: function(Pair(jax.device_put(jnp.arange(4.0), jax.devices()[1]), None)),
    ],
    ids=["shape", "dtype", "argument", "static", "device"],
)
def test_other_calls_are_other_programs(directory: Path, call: Any) -> None:
    Traced()(Pair(jnp.arange(4.0), None))
    function = Traced()
    expected = call(lambda *args, **kw: function.kept._function(*args, **kw))  # noqa: SLF001
    function.count = 0
    found = call(function)
    assert len(list(directory.iterdir())) == 2
    np.testing.assert_array_equal(found.first, expected.first)


def test_another_identity_is_another_program(directory: Path) -> None:
    x = Pair(jnp.ones(2), None)
    functions = [Traced("a"), Traced("b")]
    assert all(function(x) is not None for function in functions)
    assert [function.count for function in functions] == [1, 1]


def test_layouts_over_devices_and_donated_arguments_are_kept(directory: Path) -> None:
    mesh = Mesh(np.asarray(jax.devices()[:2]), ("data",))
    for count in (1, 0):
        x = Pair(jax.device_put(jnp.arange(4.0), NamedSharding(mesh, PartitionSpec("data"))), None)
        function = Traced(donate=True)
        found = function(x)
        assert function.count == count and found.first.sharding.device_set == set(jax.devices()[:2])
        assert x.first.is_deleted()
        np.testing.assert_array_equal(found.first, [0, 2, 4, 6])


@pytest.mark.parametrize("how", ["damaged", "of others"])
def test_a_file_that_cannot_be_used_is_made_anew(directory: Path, how: str) -> None:
    x = Pair(jnp.ones(2), None)
    Traced()(x)
    (file,) = directory.iterdir()
    if how == "damaged":
        file.write_bytes(b"nothing")
    else:
        directory.chmod(0o777)
    function = Traced()
    assert function(x).first.sum() == 4 and function.count == 1
    if how == "damaged":
        assert file.stat().st_size > 100


def test_a_program_that_a_process_ended_by_is_not_loaded_again(directory: Path) -> None:
    x = Pair(jnp.ones(2), None)
    Traced()(x)
    (file,) = directory.iterdir()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    file.with_suffix(".loading").write_text(str(ended.pid))
    functions = Traced(), Traced()
    assert all(function(x).first.sum() == 4 for function in functions)
    assert [function.count for function in functions] == [1, 0]
    assert [one.suffix for one in directory.iterdir()] == [".program"]


def test_two_threads_load_the_same_program(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = Pair(jnp.ones(2), None)
    Traced()(x)
    load = kept_programs.serialize_executable.deserialize_and_load

    def slowly(*args: Any, **kw: Any) -> Any:
        time.sleep(0.5)
        return load(*args, **kw)

    monkeypatch.setattr(kept_programs.serialize_executable, "deserialize_and_load", slowly)
    functions = Traced(), Traced()
    with ThreadPoolExecutor(2) as pool:
        assert all(found.first.sum() == 4 for found in pool.map(lambda function: function(x), functions))
    assert [function.count for function in functions] == [0, 0]


def test_a_directory_that_cannot_be_written_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    keep_programs(tmp_path / "file" / "programs")
    try:
        assert Traced()(Pair(jnp.ones(2), None)).first.sum() == 4
    finally:
        keep_programs(None)


def test_a_function_with_options_of_its_own_can_be_a_part_of_another() -> None:
    """JAX refuses compiler options below another program."""
    options = quick_options()
    kept = KeptFunction(
        jax.jit(lambda x, *, times: times * x, static_argnames="times", compiler_options=options), ("times",), ""
    )
    np.testing.assert_array_equal(jax.jit(lambda x: kept(x, times=3) + 1)(jnp.arange(2.0)), [1, 4])
    assert jax.eval_shape(lambda: kept.inline(jnp.ones(3), times=2)).shape == (3,)
    np.testing.assert_array_equal(kept(jnp.arange(2.0), times=3), [0, 3])


def test_without_a_directory_and_while_tracing_it_is_the_jitted_function(directory: Path) -> None:
    function = Traced()
    assert jax.jit(lambda x: function(Pair(x, None)).first.sum())(jnp.ones(2)) == 4
    keep_programs(None)
    assert function(Pair(jnp.ones(2), None)).first.sum() == 4
    assert not directory.exists() and function.kept.lower(Pair(jnp.ones(2), None)).as_text()


_PROGRAM = """
    import sys
    import jax, jax.numpy as jnp, numpy as np
    from tooncrafter_jax.runtime.compilation_cache import enable_compilation_cache
    from tooncrafter_jax.runtime.kept_programs import KeptFunction
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    enable_compilation_cache(sys.argv[1])
    traced = []
    def wave(x):
        traced.append(x)
        return jnp.tanh(x @ x.T).sum(axis=0)
    print(KeptFunction(jax.jit(wave), (), "")(jax.device_put(np.ones((64, 8), np.float32)))[0], len(traced))
"""


def test_a_program_out_of_the_cache_of_cpus_is_not_written_again(tmp_path: Path) -> None:
    """It would lack functions, and fail when it is called."""
    programs, found = tmp_path / "programs", []
    for is_emptied in (False, False, True, False):
        if is_emptied:
            shutil.rmtree(programs)
        run = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(_PROGRAM), str(tmp_path)],
            env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            check=True,
        )
        found.append((run.stdout.split(), len(list(programs.glob("*")))))
    value = found[0][0][0]
    assert found == [([value, traced], kept) for traced, kept in (("1", 1), ("0", 1), ("1", 0), ("1", 0))]


def test_old_programs_make_room(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = Pair(jnp.ones(2), None)
    Traced()(x, times=2)
    (first,) = directory.iterdir()
    monkeypatch.setattr(kept_programs, "LARGEST", int(1.5 * first.stat().st_size))
    Traced()(x, times=3)
    (left,) = directory.iterdir()
    assert left != first
