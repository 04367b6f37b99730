# Everything runs in .venv, which each target makes when it is missing; test-newest and test-lowest have environments of their own.
# PYTHON: any Python from 3.11 on. PYTHON_NEWEST: the newest that is supported. Both are looked for on PATH, then under pyenv.
find = $(shell for python in $(1) $$HOME/.pyenv/versions/$(2).*/bin/$(1) $$PYENV_ROOT/versions/$(2).*/bin/$(1); do \
	$$python -c pass 2>/dev/null && command -v $$python && break; done)
PYTHON ?= $(or $(call find,python3.11,3.11),$(shell command -v python3))
PYTHON_NEWEST ?= $(call find,python3.13,3.13)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# Resolves for the two other environments: torch is left out, which is large, and whose tests then skip by name.
UV := UV_PYTHON_DOWNLOADS=never $(BIN)/uv
LIGHT_EXTRAS := --extra dev --extra data --extra eval --extra hub --extra app
# A file's tests share compiled programs, so a file stays in one process; tests/conftest.py says in which order they come.
PYTEST := -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder
# Tests compile more than they compute; the slow ones and `make verify` run what users run.
QUICK := XLA_FLAGS="--xla_backend_optimization_level=1 $$XLA_FLAGS"
# With other versions: annotations need no second check.
VERSIONS := $(QUICK) JAXTYPING_DISABLE=1 TEST_EXAMPLES=50

# Tests start Python some hundred times, and each would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: app demo docs test test-full-size test-gate test-lowest test-newest test-slow verify check format clean

app: .venv/app
	$(BIN)/python -m tooncrafter_jax app --open

demo: .venv/core
	$(BIN)/python sample.py

docs: .venv/docs
	$(BIN)/python scripts/build_docs.py

test: .venv/dev
	$(QUICK) $(BIN)/python $(PYTEST)

test-gate: .venv/dev
	$(QUICK) $(BIN)/python $(PYTEST) -m gate

test-newest: .venv-3.13/dev
	$(VERSIONS) FORBID_SKIPS="$${FORBID_SKIPS:+torch-data,tpu,pybullet}" .venv-3.13/bin/python $(PYTEST) -m 'not (heavy or gate or slow or full_size)'

test-lowest: .venv-lowest/dev
	$(VERSIONS) FORBID_SKIPS="$${FORBID_SKIPS:+torch-data,tpu}" .venv-lowest/bin/python $(PYTEST) -m 'not (heavy or gate or slow or full_size)'

test-full-size: .venv/dev
	$(BIN)/python -m pytest -m full_size -s

test-slow: .venv/dev
	$(BIN)/python -m pytest -m slow -s

verify: .venv/core
	$(BIN)/python -m tooncrafter_jax verify tests/golden/tiny

check: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: .venv/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.venv/core: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv
	$(PIP) --editable .
	touch $@

.venv/dev: .venv/core
	$(PIP) uv
	$(UV) pip install --quiet --python .venv --constraint constraints.txt --editable '.[dev,hub,data,eval,torch-data,app,browser]'
	touch $@

.venv/app: .venv/core
	$(PIP) --editable '.[app]'
	touch $@

.venv/docs: .venv/core
	$(PIP) --editable '.[docs]'
	touch $@

.venv-3.13/python:
	$(if $(PYTHON_NEWEST),,$(error no Python 3.13 on PATH or under pyenv: install it, or give make PYTHON_NEWEST=/path/to/python3.13))
	$(PYTHON_NEWEST) -m venv --clear .venv-3.13
	ln -s bin/python $@

.venv-3.13/dev: pyproject.toml .venv/dev .venv-3.13/python
	$(UV) pip install --quiet --python .venv-3.13 --upgrade --requirements pyproject.toml $(LIGHT_EXTRAS) --editable .
	touch $@

.venv-lowest/dev: pyproject.toml .venv/dev
	$(BIN)/python -m venv --clear .venv-lowest
	$(UV) pip compile --quiet --python .venv-lowest --resolution lowest-direct pyproject.toml $(LIGHT_EXTRAS) --output-file .venv-lowest/versions.txt
	$(UV) pip install --quiet --python .venv-lowest --requirements .venv-lowest/versions.txt --no-deps --editable .
	touch $@

clean:
	rm -rf .venv .venv-3.13 .venv-lowest build demo .cache
