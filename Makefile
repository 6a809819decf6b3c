# What a developer does here is a target; `make` alone lists them. Works with GNU make 3.81 and BSD tools.

.DEFAULT_GOAL := help
SHELL := /bin/bash
VENV := .venv
VENV_PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.up-to-date
CONFIG ?= config/example.json
ARGS ?=
# Files in the order in which they are collected: those that take long come first. In CI one after the other: there
# time is plenty, and a test that waits for something must not be held up by its neighbours.
SIDE_BY_SIDE := $(if $(CI),,-n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder)
BASE ?=
CACHES := .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .cache build dist

.PHONY: help
help: ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(STAMP) ## Make the virtual environment .venv with everything in requirements.lock

$(STAMP): requirements.lock pyproject.toml scripts/setup.sh
	@scripts/setup.sh $(VENV)
	@touch $@

.PHONY: run
run: setup ## Run the service: CONFIG=config/example.json ARGS="--verbose"
	@$(VENV_PYTHON) -m imgbuilder run --config $(CONFIG) $(ARGS)

.PHONY: run-local
run-local: CONFIG = config/local.json
run-local: setup ## Run the service with a cluster's workspace manager: KUBE_CONTEXT=dev NAMESPACE=default
	@$(VENV_PYTHON) -m imgbuilder run-local --config $(CONFIG) $(ARGS)

.PHONY: world
world: setup ## Run what the service talks to: a registry, a workspace manager, a supervisor
	@$(VENV_PYTHON) -m tests.world $(ARGS)

.PHONY: demo
demo: setup ## Build real images on this machine, and watch: ARGS="--engine podman" for another engine
	@scripts/demo-programs.sh
	@$(VENV_PYTHON) scripts/demo.py $(ARGS)

.PHONY: test
test: setup lint test-programs ## Check everything and run all tests: ARGS="tests/unit -k name" for some
	@$(VENV_PYTHON) -m pytest -q $(or $(ARGS),$(SIDE_BY_SIDE))

.PHONY: bench
bench: setup ## Measure the service: ARGS="--only fan-out --quick", BASE=COMMIT to compare with a commit
	@$(VENV_PYTHON) -m tests.bench $(if $(BASE),--base $(BASE)) $(ARGS)

.PHONY: test-programs
test-programs: setup
	@scripts/test-programs.sh

.PHONY: soak
soak: setup ## Load and faults for half an hour, to see that nothing grows: ARGS="--minutes 5 --out /tmp/soak.png"
	@$(VENV_PYTHON) -m tests.faults.soak --minutes 30 --out docs/pictures/soak.png $(ARGS)

.PHONY: lint
lint: setup ## Check style, types, layers, and that what is generated is up to date
	@$(VENV_PYTHON) -m ruff format --check --quiet . || { echo 'not formatted: run `make format`' >&2; exit 1; }
	@$(VENV_PYTHON) -m ruff check --quiet .
	@$(VENV_PYTHON) -m mypy --no-error-summary
	@$(VENV_PYTHON) -c 'import sys; from importlinter.cli import lint_imports_command as main; sys.exit(main(["--no-cache"]))' \
		> $(VENV)/layers.txt || { cat $(VENV)/layers.txt >&2; exit 1; }
	@$(VENV_PYTHON) scripts/generate_protos.py --check 2> $(VENV)/protos.txt || { cat $(VENV)/protos.txt >&2; exit 1; }
	@$(VENV_PYTHON) scripts/generate_docs.py --check
	@echo 'style, types, layers, generated code and pages: ok'

.PHONY: format
format: setup ## Format the code, and mend what ruff can mend
	@$(VENV_PYTHON) -m ruff check --quiet --fix-only .
	@$(VENV_PYTHON) -m ruff format .

.PHONY: protos
protos: setup ## Generate imgbuilder/pb from protos/
	@$(VENV_PYTHON) scripts/generate_protos.py

.PHONY: docs
docs: setup ## Generate docs/configuration.md and docs/metrics.md from the code
	@$(VENV_PYTHON) scripts/generate_docs.py

.PHONY: lock
lock: setup ## Make the lock files anew from pyproject.toml, with the newest versions that fit
	@$(VENV_PYTHON) -m venv .cache/uv
	@.cache/uv/bin/python -m pip install --quiet --disable-pip-version-check uv
	@.cache/uv/bin/uv pip compile --quiet --upgrade --universal --generate-hashes --python-version 3.11 \
		--no-header --all-extras --group dev pyproject.toml -o requirements.lock
	@.cache/uv/bin/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 \
		--no-header --extra speed --extra tracing --no-emit-package kubernetes-asyncio \
		--constraints requirements.lock pyproject.toml -o requirements-service.lock

.PHONY: clean
clean: ## Remove everything that was made here: .venv, caches, packages
	@rm -rf $(VENV) $(CACHES)
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
