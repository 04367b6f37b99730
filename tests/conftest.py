"""How every test runs: eight CPU devices, a cache of compiled programs, and the tiny model of the reference numbers.

Annotations are checked while testing in the rooms that give shapes (`--jaxtyping-packages` in pyproject.toml); in the
others pyright's check is enough. The check is installed after this file is read, so this file imports the package
inside functions only.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import fcntl
import functools
import gc
import os
import resource
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jaxtyping
import numpy as np
import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from tooncrafter_jax.models.configuration import ModelConfig
    from tooncrafter_jax.typing import Device

CPU_DEVICES = 8
KEPT_GIGABYTES = 1.2
"""Up to this much memory a test process keeps its compiled programs from one file to the next."""

settings.register_profile(
    "gate",
    max_examples=200,
    deadline=None,  # a busy machine is no fault of the code's
    derandomize=True,  # the same examples in every run
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
settings.load_profile("gate")

jax.config.update("jax_num_cpu_devices", CPU_DEVICES)
gc.set_threshold(50_000, 20, 20)  # jax has millions of objects: to look through them every 700 new ones takes long
if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
    jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parents[1] / ".cache" / "jax"))


@pytest.fixture
def unchecked_types() -> Iterator[None]:
    """Turns the check of annotations off, for values of a wrong type that the code itself must refuse in words."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture(autouse=True)
def no_kept_programs() -> Iterator[None]:
    """What a command turns on in one test must not keep the next one from tracing."""
    yield
    from tooncrafter_jax.runtime.kept_programs import keep_programs

    keep_programs(None)


@pytest.fixture(scope="session")
def tiny_config() -> ModelConfig:
    """The architecture of the reference numbers."""
    from tooncrafter_jax.models.configuration import tiny

    return tiny()


@pytest.fixture(scope="session")
def tiny_params() -> Callable[[str], dict[str, jax.Array]]:
    """Component -> its parameters made by the weight rule, as the reference numbers were."""
    from tests.reference import tiny_params

    return tiny_params


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, np.ndarray]]:
    """Name of a file of reference numbers (without .npz) -> its arrays."""
    from tests.reference import golden

    return golden


@pytest.fixture(scope="session")
def tiny_networks(tiny_config: ModelConfig) -> dict[str, Any]:
    """The tiny model's networks in float32."""
    return tiny_config.networks()


@pytest.fixture(scope="session")
def devices() -> list[Device]:
    """Eight CPU devices; a test that needs them is skipped where JAX was started before with fewer."""
    found = jax.devices("cpu")
    if len(found) < CPU_DEVICES:
        pytest.skip(f"needs {CPU_DEVICES} CPU devices")
    return found[:CPU_DEVICES]


@pytest.fixture(scope="session")
def metric_weights() -> Path:
    """The directory of the published weights of LPIPS and I3D: fetched once into `.cache`, used offline ever after."""
    from tooncrafter_jax.errors import UserError
    from tooncrafter_jax.zoo.metric_weights import fetch_metric_weights

    directory = Path(__file__).parents[1] / ".cache" / "metric_weights"
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the test processes beside this one wait for one download
        try:
            fetch_metric_weights(directory)
        except UserError as error:
            pytest.skip(str(error))
    return directory


# --- order ---


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that compile much come first, so that no test process is left with one of them when the others are done."""
    heavy = collections.Counter(item.path for item in items if item.get_closest_marker("heavy"))
    items.sort(key=lambda item: (-heavy[item.path], "training" not in item.path.parts))  # stable: else the order stays


# --- memory ---

_CACHED = type(functools.cache(len))
_highest: dict[str, float] = {}
"""Each file that took more memory than all before it in this process -> the peak by then."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None]:
    """After the last test of a file: what only that file needs is given back, if there is much of it."""
    yield
    is_last = nextitem is None or nextitem.path != item.path
    if is_last and _peak_gigabytes() > max(_highest.values(), default=0.0):
        _highest[item.path.name] = _peak_gigabytes()
    if is_last and _resident_gigabytes() > KEPT_GIGABYTES:
        for value in vars(getattr(item, "module", None) or object).values():
            if isinstance(value, _CACHED):  # networks, parameters and results of this file
                value.cache_clear()
        jax.clear_caches()
        gc.collect()
        with contextlib.suppress(OSError, AttributeError):  # glibc alone has it
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def _resident_gigabytes() -> float:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e9
    except OSError:  # not Linux: as if there were much
        return float("inf")


def _peak_gigabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def _where() -> str:
    """The last files that raised it, the highest first."""
    return "".join(f", {peak:.1f} by {name}" for name, peak in list(_highest.items())[:-5:-1])


class PeakMemory:
    """Prints how much memory each test process needed at most, and fails the run where that is over TEST_MEMORY_GB."""

    def __init__(self) -> None:
        self.peaks: dict[str, float] = {}
        self.where: dict[str, str] = {}

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        if peak := getattr(node, "workeroutput", {}).get("peak_gigabytes"):
            self.peaks[node.gateway.id] = peak
            self.where[node.gateway.id] = node.workeroutput["where"]

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        output = getattr(session.config, "workeroutput", None)
        if output is not None:  # of a worker of pytest-xdist
            output["peak_gigabytes"], output["where"] = _peak_gigabytes(), _where()
            return
        self.peaks = self.peaks or {"this process": _peak_gigabytes()}
        self.where = self.where or {"this process": _where()}
        if max(self.peaks.values()) > self._allowed():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        for name, peak in sorted(self.peaks.items()):
            terminalreporter.write_line(f"peak memory of {name}: {peak:.1f} GB{self.where.get(name, '')}")
        if max(self.peaks.values(), default=0) > self._allowed():
            terminalreporter.write_line(f"that is more than TEST_MEMORY_GB={self._allowed():g} allows", red=True)

    @staticmethod
    def _allowed() -> float:
        return float(os.environ.get("TEST_MEMORY_GB") or "inf")


# --- skipped tests ---


class ForbiddenSkips:
    """With FORBID_SKIPS set, as in the gate, a skipped test fails the run.

    FORBID_SKIPS=1 allows none; FORBID_SKIPS=torch-data,tpu allows those whose reason names one of these extras (or
    packages) in quotes: "needs the extra 'torch-data'".
    """

    def __init__(self) -> None:
        self.forbidden: list[str] = []

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        allowed = os.environ.get("FORBID_SKIPS", "")
        if reporter is None or not allowed:
            return
        for report in reporter.stats.get("skipped", []):
            reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
            if not any(f"'{name}'" in reason for name in allowed.split(",")):
                self.forbidden.append(f"{report.nodeid}: {reason}")
        if self.forbidden:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        for line in self.forbidden:
            terminalreporter.write_line(
                f"skipped, which FORBID_SKIPS={os.environ['FORBID_SKIPS']} forbids: {line}", red=True
            )


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(PeakMemory())
    config.pluginmanager.register(ForbiddenSkips())
