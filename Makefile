# Shortcuts; README.md has the same commands in full.
BIN := .venv/bin

.PHONY: install tests lint example

install: .venv/installed
.venv/installed: pyproject.toml
	python3 -m venv .venv && $(BIN)/pip install --quiet -e ".[dev]" && touch $@

tests: install
	$(BIN)/pytest

lint: install
	$(BIN)/ruff check . && $(BIN)/mypy

example: install
	$(BIN)/separate examples/band.flac --prompt "acoustic guitar" --plot --force
