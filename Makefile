# `make demo` and `make test` create .venv the first time; `make help` lists all targets.
# PYTHON    the interpreter that makes .venv (3.11 or newer; default: python3.11, then python3)
# PIP_ARGS  options for every pip call, for example an index with torch for your GPU or for the CPU alone:
#           make setup PIP_ARGS="--extra-index-url URL"

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PIP_ARGS ?=
PYTHON ?= $(shell for p in python3.11 python3; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done)

RUN := runs/demo
SETUP_STAMP := $(VENV)/.setup-stamp
DOCS_STAMP := $(VENV)/.docs-stamp
BENCH_STAMP := $(VENV)/.bench-stamp

.PHONY: help setup setup-bench demo test test-slow lint format docs bench bench-glue bench-ablation bench-peers wheel-check clean distclean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 18

setup: $(SETUP_STAMP) ## create .venv with everything that the other targets need (some minutes)

# The stamp's time is that of the last complete installation: packages are installed again only if these files change.
$(SETUP_STAMP): pyproject.toml constraints.txt
	@if [ -z "$(PYTHON)" ]; then echo "No Python 3.11 or newer found. Install it, or give its path: make PYTHON=/path/to/python" >&2; exit 1; fi
	@test -x $(BIN)/python || { echo "Making $(VENV) with $(PYTHON)"; "$(PYTHON)" -m venv $(VENV); }
	@echo "Installing prunelora and its dependencies into $(VENV): some minutes the first time"
	$(PIP) install $(PIP_ARGS) -c constraints.txt -e ".[demo,onnx,dev]"
	@touch $@

$(DOCS_STAMP): $(SETUP_STAMP)
	$(PIP) install $(PIP_ARGS) -c constraints.txt -e ".[docs]"
	@touch $@

setup-bench: $(BENCH_STAMP) ## setup, and the other libraries that `make bench-peers` measures

$(BENCH_STAMP): $(SETUP_STAMP)
	$(PIP) install $(PIP_ARGS) -c constraints.txt -e ".[bench]"
	@touch $@

demo: $(SETUP_STAMP) ## the embedded example: tune, score, prune, tune again, export, measure, report; into runs/demo
	$(BIN)/prunelora run --keep-macs 0.5 --epochs 1 --out $(RUN)
	@echo "Report: $(CURDIR)/$(RUN)/report.html"

# A test file stays in one process, since its tests share trained models.
test: $(SETUP_STAMP) ## tests, without the slow ones
	$(BIN)/pytest -n 2 --dist loadfile

# pytest's exit code 5 means that no test is marked slow, which is not a failure.
test-slow: $(SETUP_STAMP) ## slow tests
	$(BIN)/pytest -n 2 --dist loadfile -m slow || { rc=$$?; test $$rc -eq 5; }

lint: $(SETUP_STAMP) ## ruff (rules and format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(SETUP_STAMP) ## apply ruff's fixes and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# -E reads every page again, since unchanged pages do not repeat their warnings.
docs: $(DOCS_STAMP) ## the documentation, into docs/_build/html; a warning is an error
	$(BIN)/sphinx-build -E -W --keep-going -b html docs docs/_build/html
	@echo "Docs: $(CURDIR)/docs/_build/html/index.html"

bench: $(SETUP_STAMP) ## time and memory of scoring, and of a training step
	$(BIN)/python -m benchmarks importance
	$(BIN)/python -m benchmarks training_step

bench-glue: $(SETUP_STAMP) ## six GLUE tasks, four methods, three seeds (hours; GLUE=folder with the tasks)
	$(BIN)/python -m benchmarks glue

bench-ablation: $(SETUP_STAMP) ## which parts of the method help, four tasks (many hours; GLUE=folder with the tasks)
	$(BIN)/python -m benchmarks ablation

bench-peers: $(BENCH_STAMP) ## Torch-Pruning, random, magnitude, LoRA, full beside prunelora (hours; GLUE=folder with the tasks)
	$(BIN)/python -m benchmarks peers

wheel-check: $(SETUP_STAMP) ## build the wheel, install it outside of this folder, and run it there
	rm -rf dist
	$(BIN)/python -m build --wheel --no-isolation --outdir dist
	$(BIN)/python .ci/wheel_check.py dist

clean: ## remove caches and build outputs; keeps .venv and runs
	rm -rf build dist docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests docs benchmarks .ci -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean ## clean, and remove .venv
	rm -rf $(VENV)
