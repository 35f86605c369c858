# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

.PHONY: help setup setup-dev demo test check bench format soak clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  make \1\t/' | expand -t 20

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Obligor needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) .
	@touch $@

$(VENV)/.compiled: $(VENV)/.core
	$(BIN)/obligor compile
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	$(INSTALL) '.[dev]'
	@touch $@

setup: $(VENV)/.compiled  ## create .venv with the core install, and compile its kernels
setup-dev: $(VENV)/.dev  ## add what tests, checks and benchmarks need

demo: setup  ## simulate, ingest, train, serve, decide, replay: the whole path in under three minutes
	$(BIN)/obligor demo

test: setup-dev  ## run the tests
	$(BIN)/python -m pytest -n 2 --dist loadfile

soak: setup-dev  ## the tests in their whole form: many more kills and examples
	OBLIGOR_SOAK=1 $(BIN)/python -m pytest

check: setup-dev  ## ruff, mypy strict, import rules and the tidy test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_tidy.py

format: setup-dev  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup-dev  ## run one benchmark: make bench NAME=backfill [QUICK=1]
	@test -n "$(NAME)" || { echo "usage: make bench NAME=<$$(ls bench | sed -n 's/\.py$$//p' | grep -v '^_' | paste -sd '|')> [QUICK=1]"; exit 2; }
	QUICK=$(QUICK) $(BIN)/python -m bench.$(subst -,_,$(NAME))

clean:  ## remove .venv and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
