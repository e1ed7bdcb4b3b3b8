# Every recipe works on a fresh checkout: what it needs, it makes. Python 3.11 or later and git are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STACK ?= .local-stack
# Processes that run tests, each with servers of its own; more than the machine has cores make some wait too long.
WORKERS ?= 2
# The image: its name, where make push takes it (ECR: ACCOUNT.dkr.ecr.REGION.amazonaws.com), and for what machines.
IMAGE ?= hop-archive
REGISTRY ?= ghcr.io/scimma
PLATFORM ?= linux/amd64
VERSION ?=
COMMIT ?=

.DEFAULT_GOAL := help
.PHONY: help setup lock demo dev down check format docs test test-unit test-kafka bench container push constraints check-image clean

help: ## List the recipes
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed ## Make .venv with hop_archive and all that its development needs

$(VENV)/.installed: pyproject.toml dev.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "hop_archive needs Python 3.11 or later; name one with: make PYTHON=python3.11 ...")'
	@echo "Making $(VENV) with hop_archive, local servers and all that its development needs: about 1 GB, two to five minutes."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup ## Archive sample alerts on a local Kafka, Postgres and S3, through Dagster, and compare every one
	$(BIN)/python -m hop_archive.devkit.demo --dir $(STACK)

dev: setup ## Start the local stack, a trickle of alerts and Dagster's UI (http://127.0.0.1:3000)
	$(BIN)/python -m hop_archive.devkit.dev --dir $(STACK)

down: setup ## Stop the local stack; Postgres and S3 keep their data
	$(BIN)/hop-archive local down --dir $(STACK)

check: setup ## Formatting, lint, types, layers, Dagster's definitions: what CI runs first
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -q hop_archive_tests/unit/test_layers.py
	# It warns of its successor, dg check defs, which is a package of its own and checks no more than this here.
	PYTHONWARNINGS=ignore $(BIN)/dagster definitions validate --workspace workspace.yaml --log-level warning

format: setup ## Format the code and mend what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: setup ## Make docs/commands.md from the commands' own help
	$(BIN)/python -m hop_archive.cli.reference > docs/commands.md

test: setup ## The tests, on real local servers where there are such
	$(BIN)/pytest -n $(WORKERS) --dist worksteal --durations=30 -m 'not kafka' hop_archive_tests --ignore hop_archive_tests/unit
	$(BIN)/pytest -n $(WORKERS) --dist worksteal --cov=hop_archive --cov-report=term:skip-covered hop_archive_tests/unit

test-unit: setup ## The tests that need no process and no server
	$(BIN)/pytest -n $(WORKERS) --dist worksteal hop_archive_tests/unit

test-kafka: setup ## The tests that need Apache Kafka itself (KAFKA_HOME, or Java and Maven)
	$(BIN)/pytest -n $(WORKERS) --dist loadfile --durations=30 -m kafka

bench: setup ## Measure rates side by side in one run; also writes bench.json
	$(BIN)/python -m hop_archive_tests.bench --json bench.json

# The shell sees these as they are, whatever they hold: a name of a tag is not ours to choose.
container push: export AS_IMAGE := $(value IMAGE)
container push: export AS_PLATFORM := $(value PLATFORM)
container push: export AS_VERSION := $(value VERSION)
container push: export AS_COMMIT := $(value COMMIT)
container push: export AS_REF := $(value GITHUB_REF)
container push: export AS_REGISTRY := $(value REGISTRY)

container: ## Build the image of what is checked out (IMAGE, VERSION, COMMIT, PLATFORM)
	$(PYTHON) docker/release.py container --image "$$AS_IMAGE" --version "$$AS_VERSION" --commit "$$AS_COMMIT" --platform "$$AS_PLATFORM"

push: ## Build and push a release: make push GITHUB_REF=hop-archive-1.2.3 (REGISTRY, IMAGE, PLATFORM)
	$(PYTHON) docker/release.py push --ref "$$AS_REF" --registry "$$AS_REGISTRY" --image "$$AS_IMAGE" --platform "$$AS_PLATFORM"

constraints: setup ## Pin the image to the versions that are installed here and tested
	$(BIN)/python docker/pin.py > docker/constraints.txt

check-image: setup ## Run all that the image would run, from a wheel in a fresh environment with its pinned versions
	HOP_ARCHIVE_TEST_WHOLE_IMAGE=1 $(BIN)/pytest hop_archive_tests/deployment/test_production.py

lock: setup ## Write dev.lock anew: the newest versions that pyproject.toml allows, with their hashes
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --extra dev --generate-hashes --no-header --output-file dev.lock pyproject.toml

clean: ## Remove the virtual environment and caches; data of the local stack stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
