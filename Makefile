# Everything happens in one .venv, from pinned and hashed requirements. To begin with, only python3 (3.11 or newer), its
# pip and make are needed; PYTHON=... names another interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help up venv venv-dev test test-cluster test-observability test-pages test-load images bench loadtest faults lint typecheck format requirements clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-20s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# exec: make waits for The Eye itself, not for a shell, so that Ctrl-C and SIGTERM stop it in order.
up: $(VENV)/.cli ## Run The Eye on this machine; OBSERVE=1 runs Prometheus, too
	@exec $(BIN)/the-eye up $(if $(OBSERVE),--observe) $(ARGS)

venv: $(VENV)/.cli ## Install what `make up` needs into .venv
	@:

venv-dev: $(VENV)/.dev ## Install what the targets below need, too
	@:

# Most tests wait for processes, so two cores are kept busy by three workers. A worker takes a file at a time, in order.
WORKERS ?= 3
# What is compiled is kept, whatever the environment says: the tests start hundreds of interpreters.
test: export PYTHONDONTWRITEBYTECODE =
test: $(VENV)/.dev ## Run the tests, three files at a time; ARGS="-k name" chooses
	@$(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-cluster: $(VENV)/.dev ## Run the tests on a real Kubernetes API and Collector, built by the first run: Go, and minutes
	@$(BIN)/pytest tests/cluster tests/collector $(ARGS)

# In CI a user becomes root unasked; the cache is another then, since what root makes stays root's.
AS_ROOT = $(if $(CI),$(shell [ "$$(id -u)" = 0 ] || echo sudo --preserve-env THE_EYE_CACHE=/var/cache/the-eye))
images: $(VENV)/.dev ## Build the images without Docker, and run each; takes root, Debian and, at first, minutes
	@$(AS_ROOT) $(BIN)/pytest -p no:cacheprovider tests/images $(ARGS)

test-observability: $(VENV)/.dev ## Run the tests on a real Prometheus, Debian's; takes minutes
	@$(BIN)/pytest tests/observability $(ARGS)

test-pages: $(VENV)/.dev ## Run the tests of the pages in Debian's chromium; ARGS=--write-screenshots renews those in docs
	@$(BIN)/pytest tests/pages $(ARGS)

bench: $(VENV)/.dev ## Measure what it can do; QUICK=1 takes a minute, ONLY=throughput,rows some parts
	@$(BIN)/python -m tests.load.bench $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY)) $(ARGS)

# HOST from the environment is no wish: some shells put this machine's name there.
GIVEN = $(if $(filter command,$(firstword $(origin $(1)))),$(2) "$($(1))")
loadtest: $(VENV)/.locust ## Load what `make up` runs, with a page on 8089 or ARGS=--headless; HOST=, TOKENS= elsewhere
	@exec $(BIN)/python -m tests.load.loadtest $(call GIVEN,HOST,--host) $(call GIVEN,TOKENS,--tokens) $(ARGS)

test-load: $(VENV)/.locust ## Run the load test for seconds against a stack of its own
	@$(BIN)/pytest tests/load $(ARGS)

faults: $(VENV)/.faults ## Break every part under load and account for every event; QUICK=1 takes minutes
	@$(BIN)/pytest tests/faults $(if $(QUICK),--short) $(if $(QUICK)$(ARGS),,--document) $(ARGS)

lint: $(VENV)/.dev ## Check style, types, imports and pins
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@! grep -nE '://|--(extra-)?index-url|--find-links|--trusted-host' requirements/*.txt \
		|| { echo 'requirements/*.txt name no package index: each machine has its own' >&2; exit 1; }

typecheck: $(VENV)/.dev ## Check the types only
	@$(BIN)/mypy

format: $(VENV)/.dev ## Format, and repair what can be
	@$(BIN)/ruff check --fix --exit-zero --quiet
	@$(BIN)/ruff format

# The pins of dev.txt hold for all: what is shipped is what was tested. Pins stay until UPGRADE=1 asks for newer ones.
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command 'make requirements'
requirements: $(VENV)/.dev ## Compile requirements/*.txt from pyproject.toml; UPGRADE=1 takes the newest
	@$(COMPILE) $(if $(UPGRADE),--upgrade) pyproject.toml --extra dev --group build -o requirements/dev.txt
	@$(COMPILE) --group build -c requirements/dev.txt -o requirements/build.txt
	@$(COMPILE) --group load -c requirements/dev.txt -o requirements/load.txt
	@for extra in api worker operator all cli; do \
		$(COMPILE) pyproject.toml --extra $$extra -c requirements/dev.txt -o requirements/$$extra.txt || exit 1; done

clean: ## Delete .venv and the tools' caches; data in .the-eye/ stays
	@rm -rf $(VENV) dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find clients docs observability operator services tests -name __pycache__ -prune -exec rm -rf {} +

# Debian's python3 has venv but may lack ensurepip: the venv is made without pip, and its pip installed from outside.
$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo '$(PYTHON) is not installed' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo '$(PYTHON) is older than Python 3.11; name another: make PYTHON=python3.12 $(MAKECMDGOALS)' >&2; exit 1; }
	@$(PYTHON) -c 'import pip, sys; sys.exit(int(pip.__version__.split(".")[0]) < 23)' 2>/dev/null || \
		{ echo '$(PYTHON) has no pip, or one older than 23; on Debian: apt install python3-pip' >&2; exit 1; }
	@$(PYTHON) -m venv --without-pip --clear $(VENV)

# A .venv of another version than a PYTHON=... that is given is made anew.
version = $(shell $(1) -c 'import sys; print(sys.version)' 2>/dev/null)
ifneq ($(origin PYTHON),file)
ifneq ($(call version,$(PYTHON)),$(call version,$(BIN)/python))
.PHONY: $(BIN)/python
endif
endif

$(VENV)/.build: requirements/build.txt $(BIN)/python
	@requirements/install.sh build $(PYTHON) -m pip --python $(BIN)/python
	@touch $@

INSTALL_EDITABLE = $(BIN)/python -m pip install --quiet --no-build-isolation --no-deps --no-index --editable
INSTALL_PROJECT = $(INSTALL_EDITABLE) .

$(VENV)/.cli: requirements/cli.txt pyproject.toml $(VENV)/.build
	@requirements/install.sh cli $(BIN)/python -m pip
	@$(INSTALL_PROJECT)
	@touch $@

# dev.txt holds all of cli.txt, so `make up` has nothing left to install afterwards.
$(VENV)/.dev: requirements/dev.txt pyproject.toml clients/python/pyproject.toml $(VENV)/.build
	@requirements/install.sh dev $(BIN)/python -m pip
	@$(INSTALL_PROJECT)
	@$(INSTALL_EDITABLE) clients/python
	@touch $(VENV)/.cli $@

# Apart from all else: imported, Locust patches the standard library, and it brings a plugin for pytest.
$(VENV)/.locust: requirements/load.txt $(VENV)/.dev
	@$(BIN)/python -m venv --without-pip --clear $(VENV)/locust
	@requirements/install.sh load $(BIN)/python -m pip --python $(VENV)/locust/bin/python
	@touch $@

$(VENV)/.faults: tests/faults/requirements.txt $(VENV)/.dev
	@$(BIN)/python -m pip install --quiet --no-deps --only-binary :all: --require-hashes -r $<
	@touch $@
