"""A folder of reference numbers: its manifest, configuration and arrays, checked before anything is computed.

The format (number 1): `manifest.json` lists every array of every `.npz` file and the cases that they belong to;
`config.json` holds the architecture in the published code's keys; key tables list the names and shapes of its tensors.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io.json_files import LARGEST_JSON, read_at_most, read_json
from tooncrafter_jax.models.configuration import ModelConfig, from_official
from tooncrafter_jax.typing import HostArray, JsonObject
from tooncrafter_jax.verification.expressions import Value, references

FORMAT = 1
"""The only number of the format that there is."""
NOTHING = object()
"""Marks an entry without an `equals` expression (which may itself be null)."""
DERIVED_SKETCH_KEYS = (
    "model_channels",
    "attention_resolutions",
    "num_res_blocks",
    "channel_mult",
    "num_head_channels",
    "transformer_depth",
    "context_dim",
)
"""What the sketch encoder has in common with the denoiser (spec section 7), for a config that has no such section."""


@dataclass(frozen=True)
class Case:
    """One run of one operation.

    Attributes:
      id: its name in the manifest.
      operation: what is computed.
      inputs: name -> expression.
      settings: name -> plain value.
    """

    id: str
    operation: str
    inputs: JsonObject
    settings: Mapping[str, Value]


@dataclass(frozen=True)
class Entry:
    """One stored array.

    Attributes:
      file, key: where it is stored.
      case, result: for an output, the case and the name of the result that it is part of; else None.
      slice: for an output, which part of the result is stored.
      at_most: for an output that is a rounding error, the bound that replaces the stored value.
      equals: for an input, the expression whose value it is; `NOTHING` for original data.
    """

    file: str
    key: str
    case: str | None = None
    result: str | None = None
    slice: tuple[object, ...] = ()
    at_most: float | None = None
    equals: object = NOTHING

    @property
    def name(self) -> str:
        """The name by which expressions refer to it."""
        return f"{self.file}:{self.key}"


class Folder:
    """A folder of reference numbers.

    Attributes:
      path: the folder.
      manifest: the parsed manifest.
      cases: name -> case.
      entries: every stored array, in the manifest's order.

    Raises:
      UserError: if a file is missing or damaged, if stored arrays and manifest do not agree, or if something refers to
        what is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise UserError(f"{path} is not a folder: name one with reference numbers and their manifest.json")
        self.manifest = self._mapping("manifest.json")
        if self.manifest.get("format") != FORMAT:
            raise UserError(f"{self._at('manifest.json')} has the format {self.manifest.get('format')!r}, not {FORMAT}")
        self.cases = {id: self._case(id, values) for id, values in self._section("cases").items()}
        self.entries = list(self._read_entries())
        self._stored: dict[str, np.ndarray] = {}
        for file in self._section("arrays"):
            self._stored |= {f"{file}:{key}": array for key, array in self._load(file).items()}
        self._check()

    # --------------------------------------------------------------------------------------------------------- contents

    @cached_property
    def official_config(self) -> Mapping[str, Value]:
        """The architecture and the diffusion constants in the published code's keys."""
        config = dict(self._mapping(self.manifest.get("config", "config.json")))
        if "sketch_encoder" not in config and isinstance(config.get("unet"), Mapping):
            config["sketch_encoder"] = {
                **{key: config["unet"][key] for key in DERIVED_SKETCH_KEYS if key in config["unet"]},
                "in_channels": config["unet"].get("out_channels"),
                "hint_channels": 1,
            }
        return config

    @cached_property
    def config(self) -> ModelConfig:
        """The architecture in our keys."""
        where = self._at(self.manifest.get("config", "config.json"))
        return from_official(self.official_config, name=self.path.name, where=where)

    @property
    def files(self) -> list[str]:
        """The array files, in the manifest's order."""
        return list(self._section("arrays"))

    def array(self, name: str) -> HostArray:
        """The stored array "FILE.npz:KEY"."""
        if name not in self._stored:
            raise UserError(f"{self._at('manifest.json')} refers to the array '{name}', which is not in the folder")
        return self._stored[name]

    def json(self, file: str) -> Value:
        """The contents of a JSON file."""
        try:
            return read_json(self._existing(file))
        except (OSError, ValueError) as error:
            raise UserError(f"{self._at(file)} is not valid JSON: {error}") from error

    def key_table(self, which: str) -> dict[str, tuple[int, ...]] | None:
        """Tensor name -> PyTorch shape of the table `which` ("model" or "sketch_encoder"); None if there is none."""
        keys = self.manifest.get("keys", {})
        file = keys.get(which) if isinstance(keys, Mapping) else None
        if file is None:
            return None
        try:
            text = read_at_most(self._existing(file), LARGEST_JSON).decode()
        except (OSError, ValueError) as error:
            raise UserError(f"{self._at(file)} cannot be read ({error}): copy the folder again") from error
        table = {}
        for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
            if not line.strip():
                continue
            try:
                name, shape, *_ = line.split("\t")
                table[name] = tuple(int(size) for size in shape.strip("()[] ").split(",") if size.strip())
            except ValueError as error:
                raise UserError(f"line {number} of {self._at(file)} is not a name, a shape and a dtype") from error
        return table

    # ---------------------------------------------------------------------------------------------------------- reading

    def _at(self, file: str) -> str:
        return str(self.path / file)

    def _existing(self, file: object) -> Path:
        path = self.path / str(file)
        if not path.is_file():
            raise UserError(f"{path} is missing: copy the folder again")
        return path

    def _mapping(self, file: str) -> Mapping[str, Value]:
        value = self.json(file)
        if not isinstance(value, Mapping):
            raise UserError(f"{self._at(file)} must hold an object, not {type(value).__name__}")
        return value

    def _section(self, name: str) -> Mapping[str, Value]:
        section = self.manifest.get(name)
        if not isinstance(section, Mapping):
            raise UserError(f"{self._at('manifest.json')} has no section '{name}'")
        return section

    def _case(self, id: str, values: object) -> Case:
        if not isinstance(values, Mapping) or not isinstance(values.get("operation"), str):
            raise UserError(f"the case '{id}' of {self._at('manifest.json')} names no operation")
        inputs, settings = values.get("inputs") or {}, values.get("settings") or {}
        if not isinstance(inputs, Mapping) or not isinstance(settings, Mapping):
            raise UserError(f"the inputs and settings of case '{id}' of {self._at('manifest.json')} must be objects")
        return Case(id, values["operation"], inputs, settings)

    def _read_entries(self) -> Iterator[Entry]:
        for file, keys in self._section("arrays").items():
            if not isinstance(keys, Mapping):
                raise UserError(f"the arrays of {file} in {self._at('manifest.json')} must be an object")
            for key, values in keys.items():
                yield self._entry(file, key, values)

    def _entry(self, file: str, key: str, values: object) -> Entry:
        where = f"the entry '{file}:{key}' of {self._at('manifest.json')}"
        values = values if isinstance(values, Mapping) else {}
        role = values.get("role")
        if role == "input":
            return Entry(file, key, equals=values.get("equals", NOTHING))
        if role != "output":
            raise UserError(f"{where} is neither an input nor an output")
        if values.get("case") not in self.cases:
            raise UserError(f"{where} belongs to the case '{values.get('case')}', which does not exist")
        if not isinstance(values.get("result"), str) or not isinstance(values.get("slice", []), list):
            raise UserError(f"{where} names no result, or its slice is not a list")
        part, bound = tuple(values.get("slice", [])), values.get("at_most")
        if bound is not None and not isinstance(bound, int | float):
            raise UserError(f"{where} has the bound {bound!r}, which is no number")
        return Entry(file, key, values["case"], values["result"], part, at_most=None if bound is None else float(bound))

    def _load(self, file: str) -> dict[str, np.ndarray]:
        try:
            with np.load(self._existing(file), allow_pickle=False) as stored:
                return {key: stored[key] for key in stored.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{self._at(file)} is damaged: copy it again") from error

    # --------------------------------------------------------------------------------------------------------- checking

    def _check(self) -> None:
        """Stored arrays and manifest list the same, and every reference leads somewhere."""
        manifest = self._at("manifest.json")
        listed = {entry.name for entry in self.entries}
        for name in listed - set(self._stored):
            raise UserError(f"{manifest} lists the array '{name}', which its file does not hold")
        unlisted = sorted(set(self._stored) - listed)
        unlisted += sorted(file.name for file in self.path.glob("*.npz") if file.name not in self._section("arrays"))
        if unlisted:
            raise UserError(f"{self.path} holds {', '.join(unlisted)}, which {manifest} does not list")
        for file, keys in self._section("arrays").items():
            for key, values in keys.items():
                self._check_stored(f"{file}:{key}", values)
        expressions = [(f"case '{id}'", value) for id, case in self.cases.items() for value in case.inputs.values()]
        expressions += [
            (f"entry '{entry.name}'", entry.equals) for entry in self.entries if entry.equals is not NOTHING
        ]
        known = {"array": set(self._stored), "case": set(self.cases)}
        for where, expression in expressions:
            for kind, name in references(expression, f"{where} of {manifest}"):
                if kind == "json":
                    self._existing(name)
                elif name not in known[kind]:
                    raise UserError(f"{where} of {manifest} refers to the {kind} '{name}', which does not exist")
        self._check_no_circle()

    def _check_stored(self, name: str, values: Mapping[str, Value]) -> None:
        array = self._stored[name]
        if "shape" in values and list(array.shape) != list(values["shape"]):
            raise UserError(
                f"the array '{name}' of {self.path} has the shape {list(array.shape)}, not {values['shape']}"
            )
        if "dtype" in values and values["dtype"] not in (str(array.dtype), array.dtype.str):
            raise UserError(f"the array '{name}' of {self.path} is {array.dtype}, not {values['dtype']}")

    def _check_no_circle(self) -> None:
        state: dict[str, bool] = {}

        def visit(id: str) -> None:
            if state.get(id) is False:
                raise UserError(f"the case '{id}' of {self._at('manifest.json')} needs its own result")
            if id not in state:
                state[id] = False
                for expression in self.cases[id].inputs.values():
                    for kind, name in references(expression, f"case '{id}'"):
                        if kind == "case":
                            visit(name)
                state[id] = True

        for id in self.cases:
            visit(id)
