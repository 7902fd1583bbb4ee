# Everything a newcomer needs: `make demo` and `make test`. Both set up .venv first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
HOME_DIR ?= .cross-lora
BASES ?= $(HOME_DIR)/bases
SOURCE := smollm2-135m
TARGET := gemma-3-270m
FLEET := $(filter-out %/broken-nonfinite %/README.md,$(wildcard examples/adapters/*))
TORCH := $(shell sed -n 's/^\(torch==[0-9.]*\)$$/\1/p' constraints.txt)
# Tests that wait for servers leave the cores to others; a file stays with one process, for what it shares.
PARALLEL := --numprocesses 3 --dist loadfile
RUN := CROSS_LORA_HOME=$(HOME_DIR) $(BIN)/cross-lora

.PHONY: help demo test test-services check survival bench install clean
.DEFAULT_GOAL := help

help:  ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST)

# torch goes first and alone, so that an index's CPU build is taken where one is offered.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[demo,dev]'
	touch $@

install: $(VENV)/.installed  ## Make .venv and install the project with its pinned versions

demo: $(VENV)/.installed  ## Migrate a real fleet between two real bases and print the verdicts
	$(BIN)/python examples/bring_bases.py --out $(BASES) $(SOURCE) $(TARGET)
	$(RUN) base add $(BASES)/$(SOURCE) $(BASES)/$(TARGET)
	$(RUN) adapter add $(FLEET) --base $(SOURCE) --owner demo
	$(RUN) base deprecate $(SOURCE) --on 2027-03-31 --successor $(TARGET)
	$(RUN) adapter check examples/adapters/broken-nonfinite --base $(SOURCE) || test $$? -eq 3
	$(RUN) migrate --source $(SOURCE) --target $(TARGET) --method auto

test: $(VENV)/.installed  ## Run every test
	$(BIN)/python -m pytest $(PARALLEL)

test-services: $(VENV)/.installed  ## Run the tests against real servers: S3, PostgreSQL, Prefect, Dask, Ray, MLflow
	$(BIN)/python -m pytest -m services $(PARALLEL)

check: $(VENV)/.installed  ## Linters, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

survival: $(VENV)/.installed  ## Kill servers, workers and flows at 50 seeded points; write the table of docs/survival.md
	$(BIN)/python -m tests.survival.run --trials 50 --seed 7 --json docs/survival.json --markdown docs/survival.md

bench: $(VENV)/.installed  ## Time and memory of every step, on the demo's bases
	$(BIN)/python tests/benchmarks/bench_migration.py --bases $(BASES) --adapter examples/adapters/log-fields

clean:  ## Remove the virtual environment and what the demo stored
	rm -rf $(VENV) $(HOME_DIR)
