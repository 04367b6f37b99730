# Everything runs in .venv, which each target makes when it is missing. PYTHON: any Python from 3.11 on.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-full-size test-slow verify check format clean

demo: .venv/core
	$(BIN)/python sample.py

test: .venv/dev
	$(BIN)/python -m pytest -n 2 --dist loadfile

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

format: .venv/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.venv/core: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv
	$(PIP) --editable .
	touch $@

.venv/dev: .venv/core
	$(PIP) --editable '.[dev,convert,data,eval,torch-data]'
	touch $@

clean:
	rm -rf .venv demo .cache
