# One target per thing a contributor does. Every target installs what it needs into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: install tests lint example benchmark clean

# Python 3.11 or later is needed; a stamp file spares reinstalling when pyproject.toml has not changed.
$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	touch $@

install: $(VENV)/installed

lint: install
	$(BIN)/ruff check .
	$(BIN)/mypy

tests: lint
	$(BIN)/python -m pytest

example: install
	$(BIN)/separate examples/band.flac --prompt "acoustic guitar" --plot --force

benchmark: install
	$(BIN)/python -m benchmarks.separation $(POOL) --out docs/benchmarks

clean:
	rm -rf $(VENV) build dist *.egg-info separated
