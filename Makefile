# Thin on purpose: everything real is in the command `preferable`. All that is made here lies in .venv and var.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --prefer-binary -c constraints.txt

# Packages are installed without bytecode, so it must be written as they are first imported.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help run test test-slow
.DEFAULT_GOAL := help

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

run: .venv/installed-web ## Start everything on this machine; PORT=8000, TORCH=cpu|cuda chooses the build of torch
	@exec $(BIN)/preferable up --follow-parent

test: .venv/installed-dev ## Run the tests but the slow ones, on real servers and a real browser
	@$(BIN)/python -m tests.chromium
	@$(BIN)/python -m pytest -m "not slow" --numprocesses auto --maxprocesses 4 --dist worksteal

test-slow: .venv/installed-dev ## Run the proofs that take minutes
	@$(BIN)/python -m tests.chromium
	@$(BIN)/python -m pytest -m slow

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit(f"Python 3.11 or newer is needed and this is {sys.version.split()[0]}: name one, as in `make run PYTHON=python3.12`.")'
	@$(PYTHON) -m venv .venv || { rm -rf .venv; echo "$(PYTHON) cannot make a virtual environment: install its venv module (Debian, Ubuntu: apt-get install python3-venv)." >&2; exit 1; }

.venv/installed-web: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing the web half into .venv"
	@$(PIP) -e .
	@touch $@

.venv/installed-dev: .venv/installed-web
	@echo "Installing everything the tests need into .venv"
	@TORCH=$${TORCH:-cpu} PREFERABLE_HOME=$(CURDIR)/.venv/installation $(BIN)/python -m app.install
	@$(PIP) -e '.[worker,dev]'
	@touch $@
