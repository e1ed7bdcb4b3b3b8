# Every recipe works on a fresh checkout: what it needs, it makes. Python 3.11 or later and git are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STACK ?= .local-stack
# Processes that run tests, each with servers of its own. Half of the time a test waits for those: four left a sixth of two cores idle.
WORKERS ?= 5
# The same where they are seldom waited for: unit tests only compute.
BUSY_WORKERS ?= 2
# The same for tests on Apache Kafka, a JVM each: two left a half of two cores idle, and took 249 s for 176 (2026-11-30).
KAFKA_WORKERS ?= 4
# The image: its name, where make push takes it (ECR: ACCOUNT.dkr.ecr.REGION.amazonaws.com), and for what machines.
IMAGE ?= hop-archive
REGISTRY ?= ghcr.io/scimma
PLATFORM ?= linux/amd64
VERSION ?=
COMMIT ?=

.DEFAULT_GOAL := help
.PHONY: help setup lock demo dev down check format docs docs-site pictures man test test-servers test-unit test-unit-meanwhile coverage test-field test-kafka test-kafka-long test-postgres test-roles simulate mutants soak bench bench-quick bench-scale container push image-lock sbom audit check-image clean

help: ## List the recipes
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

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

docs: setup ## Make docs/commands.md from the commands' own help, and docs/hop_archive.schema.json from the stanzas
	$(BIN)/python -m hop_archive.cli.reference > docs/commands.md
	$(BIN)/hop-archive schema > docs/hop_archive.schema.json

docs-site: setup ## Build the documentation as a site, in build/site; anything wrong in it is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

pictures: setup ## Make the pictures of the documentation anew (wants Chromium, and playwright in .venv)
	$(BIN)/python docs/pictures.py

man: setup ## Make manual pages of all commands, in build/man
	$(BIN)/python docs/man.py build/man

# Where an environment forbids bytecode, as images of Python do, each of hundreds of programs and each process of pytest would
# compile all of it anew: to collect the tests took 20 s of processor time each, for 12 (2026-11-29).
check test test-servers test-unit test-unit-meanwhile test-field test-kafka test-kafka-long test-postgres test-roles: export PYTHONDONTWRITEBYTECODE :=

test: setup ## The tests, on real local servers where there are such
	@$(MAKE) --no-print-directory --jobs=2 test-servers test-unit-meanwhile

test-servers: setup
	$(BIN)/pytest -n $(WORKERS) --dist worksteal --durations=30 -m 'not kafka' hop_archive_tests --ignore hop_archive_tests/unit

# In what those leave idle while they wait. What they print is shown at once, when they are over.
test-unit-meanwhile: setup
	@mkdir -p build
	@status=0; nice -n 5 $(BIN)/pytest -n $(BUSY_WORKERS) --dist worksteal hop_archive_tests/unit > build/test-unit.log 2>&1 || status=$$?; \
		cat build/test-unit.log; exit $$status

test-unit: setup ## The tests that need no process and no server
	$(BIN)/pytest -n $(BUSY_WORKERS) --dist worksteal hop_archive_tests/unit

# Not a part of test: before Python 3.14, which measures cheaply, it doubles the processor time of these (2026-11-29, 3.11: 103 s for 50).
coverage: setup ## Run the unit tests, and show what of the code they do not reach
	$(BIN)/pytest -n $(BUSY_WORKERS) --dist worksteal --cov=hop_archive --cov-report=term:skip-covered hop_archive_tests/unit

test-field: setup ## The tests on archive-core's own shapes: its documents in every form, rows and tables
	$(BIN)/pytest -n $(WORKERS) --dist worksteal -m field hop_archive_tests

# Where tests on it are, and nowhere else (unit/test_marks.py): to collect all others took each process 10 s.
ON_KAFKA := hop_archive_tests/kafka hop_archive_tests/contract hop_archive_tests/deployment/test_kafka.py
test-kafka: setup ## The tests that need Apache Kafka itself (KAFKA_HOME, or Java and Maven)
	$(BIN)/pytest -n $(KAFKA_WORKERS) --dist loadfile --no-loadscope-reorder --durations=30 -m 'kafka and not slow_kafka' $(ON_KAFKA)

test-kafka-long: setup ## Those of them that take long: three brokers restarted under load, upkeep, restores that are killed, secrets changed under Dagster; and the store on S3Mock, in Java, too
	$(BIN)/pytest -n $(BUSY_WORKERS) --dist loadfile --durations=30 -m slow_kafka $(ON_KAFKA)

test-postgres: setup ## The tests that rest on Postgres, on each version that is promised (needs Maven, once)
	$(BIN)/python -m hop_archive_tests.postgres_versions -n$(WORKERS) --dist loadfile $(POSTGRES)

# All that open a catalog on Postgres by what the tests share; what needs Apache Kafka or knows mocks alone is left out.
test-roles: setup ## The tests on Postgres and S3 under the roles of deploy/postgres/roles.sql and the policies of deploy/iam
	HOP_ARCHIVE_TEST_ROLES=1 $(BIN)/pytest -n $(WORKERS) --dist loadfile --durations=30 -m 'not kafka' -k 'not mock' \
		$$(grep -rlE 'OpenArchive|"open_archive"|contract\.catalog_fixtures' --include='test_*.py' hop_archive_tests --exclude-dir=kafka --exclude-dir=deployment --exclude-dir=processes)

# How long to simulate, and from which seed on: another one finds other histories.
SECONDS ?= 60
SEED ?= 1
simulate: setup ## Play histories of many processes with faults, over mocks, and judge them; one that fails is shrunk
	$(BIN)/python -m hop_archive_tests.simulation --seconds $(SECONDS) --seed $(SEED)

mutants: setup ## Put faults into a copy of the code, one after another, and tell of each whether it is found
	$(BIN)/python -m hop_archive_tests.simulation.mutants

# For how long everything is killed, frozen and cut; SEED replays a schedule. What the archive then needs to complete comes on top.
MINUTES ?= 5
soak: setup ## Archive while servers, runs, disks and clocks fail by a seeded schedule (MINUTES, SEED), then compare every message
	$(BIN)/python -m hop_archive_tests.soak --minutes $(MINUTES) $(if $(filter command line environment,$(origin SEED)),--seed $(SEED))

bench: setup ## Measure all side by side in one run, about a quarter of an hour; also writes bench.json and bench.html
	$(BIN)/python -m hop_archive_tests.bench --json bench.json --page bench.html

bench-quick: setup ## The same with little of each: whether the bench works, not how fast anything is
	$(BIN)/python -m hop_archive_tests.bench --quick

bench-scale: setup ## What a commit costs at a million rows, and at ten: half an hour, 6 GB; also writes bench-scale.json
	$(BIN)/python -m hop_archive_tests.bench.growth --json bench-scale.json

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

image-lock: setup ## Pin the image to what is installed here and tested, with the hashes of dev.lock
	$(BIN)/python docker/pin.py > docker/image.lock
	$(BIN)/python docker/pin.py build > docker/build.lock
	$(BIN)/python docker/sbom.py licences > docs/licences.md

sbom: setup ## Write the image's bill of materials (CycloneDX): build/sbom.cdx.json
	@mkdir -p build
	$(BIN)/python docker/sbom.py > build/sbom.cdx.json

audit: setup ## Ask for known vulnerabilities of all that is locked; says so where nobody can be asked
	$(BIN)/python docker/audit.py

check-image: setup ## Run all that the image would run, and a light install, from a wheel in fresh environments with pinned versions
	HOP_ARCHIVE_TEST_WHOLE_IMAGE=1 $(BIN)/pytest hop_archive_tests/deployment/test_production.py hop_archive_tests/deployment/test_light.py

# Without pip, which pip-audit wants and which is there: it would replace itself in the middle of its work.
lock: setup ## Write dev.lock anew: the newest versions that pyproject.toml allows, with their hashes
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --extra dev --generate-hashes --no-emit-package pip --no-header --output-file dev.lock pyproject.toml

clean: ## Remove the virtual environment and caches; data of the local stack stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
