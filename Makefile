# The two commands a new user needs: `make demo` shows the whole path, `make test` checks everything.
# `make bench` compares it with its peers and writes docs/performance.md.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: install demo test bench lint types contracts clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt hatchling editables
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--no-build-isolation --editable '.[dev,training]'
	touch $@

# make demo CT=/path/to/series sends your own series instead of the made one.
demo: install
	$(BIN)/python -m tests.demo $(if $(CT),"$(CT)")

test: lint types contracts
	$(BIN)/python -m pytest $(TESTS)

# make bench BENCH='contours metrics' measures only these.
bench: install
	$(BIN)/python -m benchmarks $(BENCH)

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: install
	$(BIN)/mypy

contracts: install
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
