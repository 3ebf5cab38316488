# Everything from a fresh clone: `make help` lists what there is.
#   PYTHON=python3.12 make setup     another interpreter (3.9 or later)
#   make test PYTEST_ARGS="-k runtime -n 0"

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
STAMP_DOCS := $(VENV)/.installed-docs
VENV26 ?= .venv-paddle26
STAMP26 := $(VENV26)/.installed
CONFIG ?= configs/quickstart/ViT_micro_digits.yaml
PYTEST_ARGS ?=
# Two test processes with one thread each. Each takes half of the tests in their order, so that the
# tests of a file share what it sets up; the one that is done first takes over from the other.
PYTEST_WORKERS ?= 2
XDIST := -n $(PYTEST_WORKERS) --dist worksteal

.PHONY: help setup quickstart test test-slow test-paddle26 coverage lint docs bench bench-data torture clean

help:  ## list these targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/; s|[$$][(]VENV[)]|$(VENV)|; s|[$$][(]VENV26[)]|$(VENV26)|' | expand -t 16

setup: $(STAMP)  ## make $(VENV) and install PASSL with everything it needs
	@echo "make setup: $(VENV) is ready ($$($(BIN)/python --version), PASSL with extras cpu, quickstart, test)"

# Redone when what is to be installed changes.
$(STAMP): setup.py requirements/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 9))' \
	    || { echo "make setup: $(PYTHON) is $$($(PYTHON) --version 2>&1); Python 3.9 or later is needed: make setup PYTHON=python3.11"; exit 1; }
	echo "make setup: creating $(VENV) with $$($(PYTHON) --version)"
	$(PYTHON) -m venv $(VENV)
	# Old pips crash while they resolve these requirements, 23.2.1 for one. -qq: errors only.
	echo "make setup: updating pip"
	$(BIN)/python -m pip install -qq --upgrade "pip>=24"
	echo "make setup: installing PASSL and its requirements (about 1.5 GB on disk, once)"
	# PYTHONWARNINGS: setuptools tells packagers how it would like projects laid out.
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install -qq --constraint requirements/constraints.txt --editable '.[cpu,quickstart,test]'
	touch $@

quickstart: $(STAMP)  ## train a small ViT on handwritten digits, in less than a minute
	@echo "make quickstart: passl-train -c $(CONFIG)"
	$(BIN)/passl-train -c $(CONFIG)

lint: $(STAMP)  ## ruff and mypy
	@echo "make lint: ruff check, then mypy"
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint  ## lint, then the tests that are not marked slow
	@echo "make test: pytest without the slow tests, $(PYTEST_WORKERS) processes"
	$(BIN)/python -m pytest $(XDIST) -m "not slow" $(PYTEST_ARGS)

test-slow: $(STAMP)  ## the slow tests: several processes and hosts, many kills
	@echo "make test-slow: pytest with the slow tests only, $(PYTEST_WORKERS) processes"
	$(BIN)/python -m pytest $(XDIST) -m slow $(PYTEST_ARGS)

test-paddle26: $(STAMP26)  ## the tests of `make test` with Paddle 2.6.2, in $(VENV26)
	@echo "make test-paddle26: pytest without the slow tests on Paddle 2.6.2, $(PYTEST_WORKERS) processes"
	$(VENV26)/bin/python -m pytest $(XDIST) -m "not slow" -p no:cacheprovider $(PYTEST_ARGS)

$(STAMP26): setup.py requirements/paddle26.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 9) <= sys.version_info < (3, 13))' \
	    || { echo "make test-paddle26: $(PYTHON) is $$($(PYTHON) --version 2>&1); Paddle 2.6.2 needs Python 3.9 to 3.12: make test-paddle26 PYTHON=python3.11"; exit 1; }
	echo "make test-paddle26: creating $(VENV26) with $$($(PYTHON) --version) (about 1 GB on disk, once)"
	$(PYTHON) -m venv $(VENV26)
	$(VENV26)/bin/python -m pip install -qq --upgrade "pip>=24"
	PYTHONWARNINGS=ignore $(VENV26)/bin/python -m pip install -qq --requirement requirements/paddle26.txt --editable .
	touch $@

# Not a requirement of the tests, so it is installed when it is first asked for.
coverage: $(STAMP)  ## lines and branches that the quick tests run, in a table and build/coverage/index.html
	@echo "make coverage: pytest with pytest-cov, without the slow tests, $(PYTEST_WORKERS) processes"
	$(BIN)/python -c 'import pytest_cov' 2>/dev/null || $(BIN)/python -m pip install -qq --constraint requirements/constraints.txt 'pytest-cov>=4.1'
	mkdir -p build
	COVERAGE_FILE=build/.coverage $(BIN)/python -m pytest $(XDIST) -m "not slow" --cov=passl --cov-branch \
	    --cov-report=term:skip-covered --cov-report=html:build/coverage $(PYTEST_ARGS)

docs: $(STAMP_DOCS)  ## build the documentation into site/; a broken link is an error
	@echo "make docs: mkdocs build --strict"
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	echo "make docs: open site/index.html, or with search: $(BIN)/python -m http.server --directory site"

$(STAMP_DOCS): $(STAMP) setup.py requirements/constraints.txt
	@echo "make docs: installing MkDocs and its theme"
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install -qq --constraint requirements/constraints.txt --editable '.[docs]'
	touch $@

bench: $(STAMP)  ## measure training steps and rewrite the table in benchmarks/README.md
	@echo "make bench: about ten minutes; keep the machine otherwise idle"
	$(BIN)/python benchmarks/train_step.py --save benchmarks/README.md

bench-data: $(STAMP)  ## measure data loading and rewrite its tables in benchmarks/README.md
	@echo "make bench-data: about four minutes; keep the machine otherwise idle"
	$(BIN)/python benchmarks/data_loading.py --save benchmarks/README.md
	$(BIN)/python benchmarks/prepare_imagenet21k.py --lines 0 --save benchmarks/README.md

torture: $(STAMP)  ## kill runs 120 times at random moments and compare every byte
	@echo "make torture: 100 SIGKILLs, 20 SIGTERMs; 21 minutes on two busy cores"
	$(BIN)/python benchmarks/torture.py --kills 100 --sigterms 20 --seed 0

clean:  ## remove the environments, caches and what is built; runs in output/ stay
	@echo "make clean: removing $(VENV), $(VENV26), caches, build files and documentation; runs in output/ stay"
	rm -rf $(VENV) $(VENV26) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
