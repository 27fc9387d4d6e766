# From a fresh clone: `make evolve` runs the main job, `make test` the tests. Each makes .venv and installs, once.

PYTHON ?= python3
GENERATIONS ?= 300
ARGS ?=

VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help evolve test lint docs

help:
	@echo "make evolve   evolve hyps on the built-in data set  [GENERATIONS=$(GENERATIONS) ARGS='--model nano']"
	@echo "make test     run the tests                         [ARGS='-k sampler']"
	@echo "make lint     ruff and mypy, changing nothing"
	@echo "make docs     the pages in docs/ as a site: site/index.html"
	@echo "PYTHON=...    the Python 3.11 or newer that makes $(VENV)"

# exec: a Ctrl-C reaches evolve itself, and make waits until it has put everything away.
evolve: $(VENV)/installed-run
	@exec $(VENV)/bin/evolve run --generations $(GENERATIONS) $(ARGS)

test: $(VENV)/installed-test
	@exec $(VENV)/bin/python -m pytest $(ARGS)

lint: $(VENV)/installed-dev
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

docs: $(VENV)/installed-docs
	@NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict
	@echo "site/index.html"

# The stamps: what is installed stays so until pyproject.toml changes. Sources need no reinstall (-e).
$(VENV)/installed-run: pyproject.toml | $(VENV)/bin/pip
	$(PIP) install -e .
	@touch $@

$(VENV)/installed-test: pyproject.toml | $(VENV)/bin/pip
	$(PIP) install -e '.[test]'
	@touch $(VENV)/installed-run $@

$(VENV)/installed-dev: pyproject.toml | $(VENV)/bin/pip
	$(PIP) install -e '.[dev]'
	@touch $(VENV)/installed-run $(VENV)/installed-test $@

$(VENV)/installed-docs: pyproject.toml | $(VENV)/bin/pip
	$(PIP) install -e '.[docs]'
	@touch $(VENV)/installed-run $@

# pip, not python, is the sign of a whole environment: where ensurepip is missing (Debian packs it apart), python is
# there and pip is not, and the next call tries again. An environment that is there is kept, whoever made it.
$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "evolve needs Python 3.11 or newer; $(PYTHON) is %d.%d. Name another one: make PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV) || { echo "no environment could be made: install venv for $(PYTHON) (on Debian and Ubuntu the package python3-venv)" >&2; exit 1; }
