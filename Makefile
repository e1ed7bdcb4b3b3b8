# Every recipe works on a fresh checkout: what it needs, it makes. Python 3.11 or later and git are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STACK ?= .local-stack

.DEFAULT_GOAL := help
.PHONY: help setup demo dev down check format test test-kafka bench clean

help: ## List the recipes
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed ## Make .venv with hop_archive and all that its development needs

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "hop_archive needs Python 3.11 or later; name one with: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: setup ## Archive sample alerts on a local Kafka, Postgres and S3, through Dagster, and compare every one
	$(BIN)/python -m hop_archive.orchestration.demo --dir $(STACK)

dev: setup ## Start the local stack, a trickle of alerts and Dagster's UI (http://127.0.0.1:3000)
	$(BIN)/python -m hop_archive.orchestration.dev --dir $(STACK)

down: setup ## Stop the local stack; Postgres and S3 keep their data
	$(BIN)/hop-archive local down --dir $(STACK)

check: setup ## Formatting, lint, types, layers: what CI runs first
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -q hop_archive_tests/unit/test_layers.py

format: setup ## Format the code and mend what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: setup ## The tests, on real local servers where there are such
	$(BIN)/pytest -m 'not kafka'

test-kafka: setup ## The tests that need Apache Kafka itself (KAFKA_HOME, or Java and Maven)
	$(BIN)/pytest -m kafka

bench: setup ## Measure rates side by side in one run; also writes bench.json
	$(BIN)/python -m hop_archive_tests.bench --json bench.json

clean: ## Remove the virtual environment and caches; data of the local stack stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
