# The two commands a new user needs: `make demo` shows the whole path, `make test` checks everything.
# `make bench` compares it with its peers and writes docs/performance.md.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: install demo test bench lint types contracts sbom audit clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt hatchling editables
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--no-build-isolation --editable '.[dev,training,audit]'
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

# A CycloneDX bill of materials of an environment: make sbom ENVIRONMENT=/opt/oarlock/.venv
ENVIRONMENT ?= $(VENV)
sbom: install
	mkdir -p build
	$(BIN)/cyclonedx-py environment $(ENVIRONMENT) --pyproject pyproject.toml --output-reproducible \
		--output-format JSON --output-file build/sbom.json

# Fails where it could not look a library up, and then lists what is pinned with its licence.
audit: install
	$(BIN)/python -m tests.audit

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
