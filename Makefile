# Everything a developer does. Each target sets up what it needs: from a bare clone `make demo` and `make test` just work.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.made
SOAK_SECONDS ?= 300
# What `make test` and `make soak` hand on to pytest: `make test ARGS="-k lease -x"`.
ARGS ?=
# How many processes share the tests, each with servers of its own; 0 runs them in one, as a debugger needs it.
WORKERS ?= logical
PARALLEL := --numprocesses=$(WORKERS) --dist=worksteal
# Which rows of the benchmarks: patterns, as in `make bench ONLY="pg-publish-*"`.
ONLY ?=
# As the extra `peers` names them.
PEERS := 'dbos>=3.4' 'langgraph>=1.2' 'langgraph-checkpoint-postgres>=3.2' 'procrastinate>=3.10' 'psycopg[binary]>=3.3'

.PHONY: help setup demo check lint format test bench bench-large bench-peers soak

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv with everything the tests need (done by itself when needed)

demo: $(STAMP) ## watch a hive plan, work, review, rework and finish
	@$(BIN)/hive demo

check: lint ## the fast checks: format, lint, types, import rules, unit, contract and architecture tests
	@$(BIN)/python -m pytest -q $(PARALLEL) $(ARGS) tests/unit tests/contract tests/architecture

test: $(STAMP) ## all tests, with branch coverage of at least 90 %, child processes counted
	@mkdir -p .cache/coverage && rm -f .cache/coverage/data*
	@status=0; \
	$(BIN)/coverage run -m pytest --color=no $(PARALLEL) $(ARGS) 2>&1 | tee .cache/pytest.txt || status=1; \
	$(BIN)/python -m tests.coverage_data .cache/coverage || status=1; \
	$(BIN)/coverage combine --quiet || status=1; \
	$(BIN)/coverage report || status=1; \
	tail -n 1 .cache/pytest.txt; \
	exit $$status

bench: $(STAMP) ## the benchmarks, as JSON lines: make bench ONLY="publish-* pg-latency"
	@$(BIN)/python -m benchmarks $(if $(ONLY),--only $(ONLY))

bench-large: $(STAMP) ## the figures again with 10,000,000 events in the table, and behind an old snapshot
	@$(BIN)/python -m benchmarks.large $(ARGS)

bench-peers: $(STAMP) ## the hive beside dbos, procrastinate and langgraph, in an environment of their own
	@test -x .venv-peers/bin/python || "$(PYTHON)" -m venv .venv-peers
	@PIP_DISABLE_PIP_VERSION_CHECK=1 .venv-peers/bin/python -m pip install -qq $(PEERS)
	@$(BIN)/python -m benchmarks.peers $(if $(ONLY),--only $(ONLY))

soak: $(STAMP) ## the fault suites for SOAK_SECONDS each (300 by default)
	@HIVE_FAULT_SECONDS=$(SOAK_SECONDS) $(BIN)/python -m pytest $(ARGS) tests/integration tests/simulation tests/e2e/test_chaos.py

lint: $(STAMP)
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --cache-dir .cache/import-linter --no-logo

format: $(STAMP)
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

# The stamp is younger than what it was made from, so an up-to-date environment costs nothing.
$(STAMP): pyproject.toml constraints.txt
	@command -v "$(PYTHON)" >/dev/null || { echo "make: no '$(PYTHON)' found; say which Python to use: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("make: the hive needs Python 3.11 or newer, \"$(PYTHON)\" is %d.%d; say which to use: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" % v[:2])'
	@$(BIN)/python -c '' 2>/dev/null || "$(PYTHON)" -m venv --clear $(VENV) || { echo "make: '$(PYTHON) -m venv' failed; Debian and Ubuntu have it in the package python3-venv" >&2; exit 1; }
	@echo "setting up $(VENV) (once, and again when pyproject.toml or constraints.txt change)" >&2
	@PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install -qq --constraint constraints.txt hatchling editables
	@PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install -qq --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	@touch $@
