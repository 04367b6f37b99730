"""Compiled programs as files: a second process on the same kind of device neither traces nor compiles.

JAX's persistent cache spares the compiler, but a program must be traced and lowered before its key is known, which
takes seconds for a denoiser. Here the key is made of what is known before: the arguments' shapes and layouts, the
sources of this package, the versions of JAX and of the device's driver, and the device's kind.

On CPUs, a program that JAX took from its own cache is not kept: written again, it lacks functions.

A program is a pickle, so a directory is only read if it is this user's own and nobody else may write to it. A program
that a process ends by while it is loaded is not loaded again.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import pickle
import stat
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jaxlib
import numpy as np
from jax.core import Tracer
from jax.experimental import serialize_executable
from jax.sharding import Mesh, NamedSharding

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.atomic_files import write_atomically
from tooncrafter_jax.typing import Device, PyTree

LARGEST = 4 * 2**30
"""Bytes that programs take together; those that were not used for longest make room."""
ENDING, LOADING = ".program", ".loading"
CACHE_HIT = "/jax/compilation_cache/cache_hits"
CPU_INFO = Path("/proc/cpuinfo")
_directory: Path | None = None
_loading = threading.Lock()
"""One thread of a process loads at a time: a mark of its own is then of a process that ended, never of another thread.
"""


def keep_programs(directory: Path | None) -> None:
    """Sets where the programs of `KeptFunction`s are kept from now on; None keeps none.

    Nothing is kept where several processes run together, as each would have to load the same program.
    """
    global _directory
    if directory is not None and _directory is None:
        _count_hits()
    _directory = directory


_hits = threading.local()


@functools.cache
def _count_hits() -> None:
    """Counts from now on, in each thread, the programs that JAX takes from its own cache."""

    def count(event: str, **_: object) -> None:
        if event == CACHE_HIT:
            _hits.count = _taken_from_cache() + 1

    jax.monitoring.register_event_listener(count)


def _taken_from_cache() -> int:
    return getattr(_hits, "count", 0)


class KeptFunction:
    """A jitted function whose programs are kept in files while `keep_programs` names a directory.

    Args:
      function: from `jax.jit`.
      static: names of its static arguments, which are given by keyword.
      identity: tells apart functions of the same name and arguments: all that they close over.
    """

    def __init__(self, function: jax.stages.Wrapped, static: Sequence[str], identity: str) -> None:
        self._function, self._static = function, frozenset(static)
        self._identity = f"{getattr(function, '__qualname__', '')} {identity}"
        self._programs: dict[Any, jax.stages.Compiled] = {}
        self._lock = threading.Lock()

    def lower(self, *args: PyTree, **kw: PyTree) -> jax.stages.Lowered:
        """As that of a jitted function."""
        return self._function.lower(*args, **kw)

    def trace(self, *args: PyTree, **kw: PyTree) -> jax.stages.Traced:
        """As that of a jitted function."""
        return self._function.trace(*args, **kw)

    def inline(self, *args: PyTree, **kw: PyTree) -> Any:
        """The function as a part of another that is being traced, whose program has options of its own."""
        return self._function.__wrapped__(*args, **kw)  # pyright: ignore[reportAttributeAccessIssue]

    def __call__(self, *args: PyTree, **kw: PyTree) -> Any:
        """Calls the function; arguments are those of the jitted one."""
        static = {name: value for name, value in kw.items() if name in self._static}
        traced = {name: value for name, value in kw.items() if name not in static}
        leaves, structure = jax.tree.flatten((args, traced))
        if any(isinstance(leaf, Tracer) for leaf in leaves):
            return self.inline(*args, **kw)
        directory, devices = _directory, _devices(leaves)
        if directory is None or not devices or jax.process_count() > 1:
            return self._function(*args, **kw)
        kinds = tuple(_kind(leaf) for leaf in leaves)
        called = (structure, kinds, tuple(sorted((name, _described(value)) for name, value in static.items())))
        program = self._programs.get(called)
        if program is None:
            with self._lock:  # threads wait for one to compile
                program = self._programs.get(called) or self._program(directory, devices, called, args, kw)
                self._programs[called] = program
        return program(*args, **traced)

    def _program(
        self,
        directory: Path,
        devices: Sequence[Device],
        called: tuple[Any, ...],
        args: Sequence[PyTree],
        kw: Mapping[str, PyTree],
    ) -> jax.stages.Compiled:
        structure, kinds, static = called
        layouts, numbers = [repr(kind) for kind in kinds], [device.id for device in devices]
        described = repr((self._identity, str(structure), layouts, static, numbers, _surroundings(devices[0])))
        path = directory / f"{hashlib.sha256(described.encode()).hexdigest()}{ENDING}"
        with _loading:
            program = _read(path, devices)
        if program is None:
            before = _taken_from_cache()
            program = self._function.lower(*args, **kw).compile()
            if devices[0].platform != "cpu" or _taken_from_cache() == before:
                _write(path, program)
        return program


def _described(value: object) -> str:
    """A static argument as text that is the same in every process."""
    if type(value).__repr__ is object.__repr__:
        return f"{type(value).__module__}.{type(value).__qualname__} {sorted(vars(value).items())}"
    return repr(value)


def _kind(leaf: Any) -> tuple[object, ...]:
    """What a program is compiled for of an argument."""
    if isinstance(leaf, jax.Array):
        return leaf.shape, str(leaf.dtype), leaf.weak_type, leaf.sharding
    if isinstance(leaf, np.ndarray | np.generic):
        return leaf.shape, str(leaf.dtype)
    return (type(leaf).__name__,)


def _devices(leaves: Sequence[Any]) -> Sequence[Device]:
    """The devices that arguments lie on, in the order of their mesh; none if that cannot be told."""
    found: list[Device] = []
    for leaf in leaves:
        if isinstance(leaf, jax.Array):
            mesh = leaf.sharding.mesh if isinstance(leaf.sharding, NamedSharding) else None
            own = list(mesh.devices.flat) if isinstance(mesh, Mesh) else list(leaf.sharding.device_set)
            found = max(found, own, key=len)
    return found


@functools.cache
def _sources() -> str:
    """A fingerprint of this package's sources."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[1]
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _surroundings(device: Device) -> tuple[object, ...]:
    """What else decides what a program is: versions, the device, and JAX's settings."""
    settings = {name: value for name, value in jax.config.values.items() if "cache" not in name and "log" not in name}
    return (
        jax.__version__,
        jaxlib.version.__version__,
        device.platform,
        device.device_kind,
        getattr(device.client, "platform_version", ""),
        jax.device_count(),
        _processor() if device.platform == "cpu" else "",
        os.environ.get("XLA_FLAGS", ""),
        os.environ.get("LIBTPU_INIT_ARGS", ""),
        repr(sorted(settings.items())),
        _sources(),
    )


@functools.cache
def _processor() -> str:
    """What this CPU can do: a program for another one may hold instructions that it does not know."""
    with contextlib.suppress(OSError):
        lines = CPU_INFO.read_text().splitlines()
        told = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
        return hashlib.sha256("\n".join(told).encode()).hexdigest()
    return ""


def _is_own(directory: Path) -> bool:
    """Whether a directory is this user's, and nobody else may write to it."""
    found = directory.stat()
    return not hasattr(os, "getuid") or (
        found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    )


def _read(path: Path, devices: Sequence[Device]) -> jax.stages.Compiled | None:
    """The program of a file; None if there is none that can be used here."""
    loading = path.with_suffix(LOADING)
    try:
        if not _is_own(path.parent):
            return None
        if loading.exists():
            if _is_alive(int(loading.read_text())):
                return None
            path.unlink()  # a process ended by it
            loading.unlink()
            return None
        data = path.read_bytes()
        loading.write_text(str(os.getpid()))
        program = serialize_executable.deserialize_and_load(
            *pickle.loads(data), backend=devices[0].client, execution_devices=devices
        )
        os.utime(path)
    # A damaged pickle, and a program of a driver that is no longer there, can raise anything.
    except Exception:
        program = None
    with contextlib.suppress(OSError):
        loading.unlink(missing_ok=True)
    return program


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return process != os.getpid()


def _write(path: Path, program: jax.stages.Compiled) -> None:
    """Keeps a program; some kinds cannot be, and a full disk is no reason to fail."""
    try:
        data = pickle.dumps(serialize_executable.serialize(program))
    except Exception:
        return
    with contextlib.suppress(OSError, UserError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(path, data)
        _make_room(path.parent)


def _make_room(directory: Path) -> None:
    """Removes the programs that were not used for longest, until the others fit."""
    found = [(file.stat(), file) for file in directory.glob(f"*{ENDING}")]
    total = sum(about.st_size for about, _ in found)
    for about, file in sorted(found, key=lambda pair: pair[0].st_mtime):
        if total <= LARGEST:
            return
        file.unlink(missing_ok=True)
        total -= about.st_size
