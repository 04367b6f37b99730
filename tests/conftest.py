"""How every test runs: eight CPU devices, a cache of compiled programs, and the tiny model of the reference numbers.

Type annotations are checked while testing (`--jaxtyping-packages` in pyproject.toml). The check is installed after this file
is read, so this file imports the package inside functions only.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jaxtyping
import numpy as np
import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from tooncrafter_jax.models.configuration import ModelConfig

CPU_DEVICES = 8

settings.register_profile(
    "gate",
    max_examples=300,
    deadline=None,  # a busy machine is no fault of the code's
    derandomize=True,  # the same examples in every run
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
settings.load_profile("gate")

jax.config.update("jax_num_cpu_devices", CPU_DEVICES)
if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
    jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parents[1] / ".cache" / "jax"))


@pytest.fixture
def unchecked_types() -> Iterator[None]:
    """Turns the check of annotations off, for values of a wrong type that the code itself must refuse in words."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


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
def devices() -> list[jax.Device]:
    """Eight CPU devices; a test that needs them is skipped where JAX was started before with fewer."""
    found = jax.devices("cpu")
    if len(found) < CPU_DEVICES:
        pytest.skip(f"needs {CPU_DEVICES} CPU devices")
    return found[:CPU_DEVICES]


@pytest.fixture(scope="session")
def metric_weights() -> Path:
    """The directory of the published weights of LPIPS and I3D: fetched once into `.cache`, used offline ever after."""
    from tooncrafter_jax.errors import UserError
    from tooncrafter_jax.weights.metric_weights import fetch_metric_weights

    directory = Path(__file__).parents[1] / ".cache" / "metric_weights"
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the test processes beside this one wait for one download
        try:
            fetch_metric_weights(directory)
        except UserError as error:
            pytest.skip(str(error))
    return directory


def pytest_sessionfinish(session: pytest.Session) -> None:
    """With FORBID_SKIPS set, as in the gate, a skipped test fails the run: the gate installs every extra."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = [] if reporter is None else reporter.stats.get("skipped", [])
    if os.environ.get("FORBID_SKIPS") and skipped:
        print(f"\n{len(skipped)} tests were skipped, which FORBID_SKIPS does not allow: {skipped[0].nodeid}, ...")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
