# `make demo` and `make test` need Python >= 3.11, make and a package registry; everything else is set up by them.
PYTHON ?= python3
# processes that run tests; each makes its own small market and servers, so more need more memory (about 2 GB each)
TEST_PROCESSES ?= 2
VENV := .venv
BIN := $(VENV)/bin
SP := $(BIN)/stock-pipeline
UV_VERSION := 0.13.9
export MLFLOW_DISABLE_TELEMETRY = true
export DAGSTER_DISABLE_TELEMETRY = yes
export GX_ANALYTICS_ENABLED = false
export OMP_WAIT_POLICY = PASSIVE

.PHONY: help demo dev test check lint types imports definitions reference lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/uv.done:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}: run make PYTHON=python3.11 ...")'
	@echo "Making the virtual environment in $(VENV) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

# bytecode is compiled once here: it halves the start of every process
$(VENV)/run.done: requirements.lock pyproject.toml $(VENV)/uv.done
	@echo "Installing what the pipeline needs (a few minutes the first time, seconds with a warm package cache) ..."
	@test -f $(VENV)/dev.done || $(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/dev.done: requirements-dev.lock pyproject.toml $(VENV)/uv.done
	@echo "Installing what the tests need (a few minutes the first time, seconds with a warm package cache) ..."
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes -r requirements-dev.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@ $(VENV)/run.done

demo: $(VENV)/run.done ## run the whole pipeline on the sample market and show the result
	@$(SP) demo

dev: $(VENV)/run.done ## start the console and API, the Dagster UI with its daemon, the MLflow UI; Ctrl-C stops them
	@$(SP) dev

test: $(VENV)/dev.done ## every test
	@$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile

check: lint types imports definitions test ## what CI runs: lint, types, import rules, definitions, tests

lint: $(VENV)/dev.done ## ruff
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(VENV)/dev.done ## mypy (strict on the core)
	@$(BIN)/mypy

imports: $(VENV)/dev.done ## import-linter: imports go down only
	@$(BIN)/lint-imports

definitions: $(VENV)/dev.done ## load the Dagster definitions as Dagster does
	@$(SP) validate

reference: $(VENV)/run.done ## write docs/reference anew from the code
	@$(BIN)/python docs/make_reference.py

lock: $(VENV)/uv.done ## renew both lock files from pyproject.toml
	@$(BIN)/uv pip compile pyproject.toml --extra build --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --quiet -o requirements.lock
	@$(BIN)/uv pip compile pyproject.toml --extra build --extra dev --extra yfinance --extra akshare --extra oidc --extra celery -c requirements.lock --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --quiet -o requirements-dev.lock

clean: ## remove everything made at run time
	rm -rf data/home .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
