# `make` lists the targets. Everything goes into $(VENV); stamps there make a second call instant.
#
#   PYTHON         the interpreter to build on (3.11 or newer)
#   TORCH          what pip is asked for. The plain default takes the build that the configured package index offers, which on
#                  Linux is a CUDA build of several gigabytes. For another build add that build's index to it, as the PyTorch
#                  site lists them for each CUDA version and for CPU only:   make quickstart TORCH="torch==2.13.0 --index-url URL"
#                  It is read when the environment is made: after a change, `make clean` first.
#   ONELAYER_DATA  folder of published problem sets for the tests marked `data` (default: ../shared/data where that exists)
#   JOBS           processes that the tests run in, of 2 GB at most (default: 2)
#   ARGS           further arguments for pytest:   make test ARGS="-k patch -x"

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv
VLLM_VENV ?= .venv-vllm
ONELAYER_DATA ?= $(abspath $(wildcard ../shared/data))
JOBS ?= 2
ARGS ?=

bin := $(VENV)/bin
install := $(bin)/pip install --disable-pip-version-check --constraint constraints.txt

ifneq ($(ONELAYER_DATA),)
export ONELAYER_DATA
else
unexport ONELAYER_DATA
without_data := -m "not data"
endif

.DEFAULT_GOAL := help
.PHONY: help install quickstart test test-vllm test-trl lint format alfworld code docs tiny clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(VENV)/.torch:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "onelayer needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; name another one: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(install) $(TORCH)
	@touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml constraints.txt
	$(install) --quiet --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(install) --quiet --editable '.[dev]'
	@touch $@

install: $(VENV)/.installed ## install the command into the virtual environment

quickstart: $(VENV)/.installed ## train one layer and all layers of the tiny model, evaluate, report
	$(bin)/onelayer study configs/quickstart.yaml

test: $(VENV)/.dev $(VENV)/.alfworld $(VENV)/.code ## run the tests (adds alfworld, which compiles, and code)
	@echo 'left out: tests/vllm and tests/other_trainers, which have environments of their own (make test-vllm, make test-trl)'
	OMP_NUM_THREADS=1 $(bin)/python -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder $(without_data) $(ARGS)

$(VLLM_VENV)/.installed: pyproject.toml constraints-vllm.txt
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/pip install --disable-pip-version-check $(TORCH)
	$(VLLM_VENV)/bin/pip install --disable-pip-version-check --quiet --no-deps --requirement constraints-vllm.txt
	$(VLLM_VENV)/bin/pip install --disable-pip-version-check --quiet --no-deps --editable .
	@touch $@

# One thread each: the processes of these tests (this one, two servers) take turns on a few cores.
test-vllm: $(VLLM_VENV)/.installed ## install vLLM for CPUs in an environment of its own, train and evaluate the tiny base through it
	OMP_NUM_THREADS=1 $(VLLM_VENV)/bin/python -m pytest tests/vllm $(ARGS)

.trl/.installed: $(VENV)/.dev
	$(bin)/pip install --disable-pip-version-check --quiet --no-deps --target .trl trl==1.16.0
	@touch $@

# TRL lies in a folder of its own, beside what the tests have of it: its other requirements are theirs, too.
test-trl: .trl/.installed ## train the tiny base with TRL, import and evaluate what comes of it
	OMP_NUM_THREADS=1 PYTHONPATH=.trl $(bin)/python -m pytest tests/other_trainers $(ARGS)

lint: $(VENV)/.dev $(VENV)/.alfworld $(VENV)/.code ## check style (ruff) and types (pyright)
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/pyright --pythonpath $(bin)/python

format: $(VENV)/.dev ## let ruff repair what it can
	$(bin)/ruff check --fix .
	$(bin)/ruff format .

$(VENV)/.alfworld: $(VENV)/.installed requirements/slim-alfworld.txt
	PATH="$(abspath $(bin)):$$PATH" $(bin)/pip install --disable-pip-version-check --quiet --no-deps --requirement requirements/slim-alfworld.txt
	@touch $@

$(VENV)/.code: $(VENV)/.installed requirements/slim-code.txt
	$(bin)/pip install --disable-pip-version-check --quiet --no-deps --requirement requirements/slim-code.txt
	@touch $@

alfworld: $(VENV)/.alfworld ## add the slim ALFWorld (needs a C++ compiler)

code: $(VENV)/.code ## add the slim EvalPlus, to compare verdicts with (the code suites work without)

docs: $(VENV)/.installed ## write docs/configuration.md from the configuration classes
	$(bin)/python -m onelayer.cli.reference > docs/configuration.md

tiny: $(VENV)/.installed ## pre-train the tiny bases again, from nothing
	$(bin)/python -m onelayer.agents.tiny.pretrain --output agents/tiny

clean: ## remove the virtual environment, builds and caches (runs/ stays)
	rm -rf $(VENV) $(VLLM_VENV) .trl build dist src/*.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
