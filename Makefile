# The two commands a new user needs: `make demo` shows the whole path, `make test` checks everything.
# `make bench` compares it with its peers and writes docs/performance.md; `make model-card` measures the weights.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Apart, so that nobody who uses or measures the program has what only looks at it.
AUDITORS := build/auditors

.PHONY: install demo test bench model-card lint types contracts sbom audit clean

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

$(AUDITORS)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(AUDITORS)
	$(AUDITORS)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		cyclonedx-bom pip-audit
	touch $@

# Two files of tests at a time: that halves the time, and tests that rely on a quiet machine are found.
test: lint types contracts $(AUDITORS)/.installed
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile $(TESTS)

# make bench BENCH='contours metrics' measures only these.
bench: install
	$(BIN)/python -m benchmarks $(BENCH)

# Packs the public data anew, measures people and the weights on it, and writes docs/model-card.md.
# In a folder of its own, so that no other cases are measured with these.
DATA ?= ../shared/data
MEASURED := runs/model-card
model-card: install
	$(BIN)/python -m training.prepare openkbp "$(DATA)/openkbp" tcia21 "$(DATA)/tcia21" --out $(MEASURED)/packs
	$(BIN)/python -m training.human_baseline "$(DATA)/tcia-shapes"
	$(BIN)/python -m training.clinical_baseline "$(DATA)/tcia21" --packs $(MEASURED)/packs
	$(BIN)/python -m training.evaluate model/weights --packs $(MEASURED)/packs --out $(MEASURED) \
		--card docs/model-card.md

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: install
	$(BIN)/mypy

contracts: install
	$(BIN)/lint-imports

# A CycloneDX bill of materials of an environment: make sbom ENVIRONMENT=/opt/oarlock/.venv
ENVIRONMENT ?= $(VENV)
sbom: install $(AUDITORS)/.installed
	$(AUDITORS)/bin/cyclonedx-py environment $(ENVIRONMENT) --pyproject pyproject.toml --output-reproducible \
		--output-format JSON --output-file build/sbom.json

# Fails where it could not look a library up, and then lists what is pinned with its licence.
audit: install $(AUDITORS)/.installed
	$(BIN)/python -m tests.audit

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
