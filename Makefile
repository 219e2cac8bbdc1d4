# What continuous integration runs is what people run: `make check`, `make test` and `make test-slurm` (but for tests marked long).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SLURM ?= slurm
INSTALLED := $(VENV)/.installed

.PHONY: sweep test test-slurm check install clean

sweep: install  ## the laptop sweep, end to end
	$(BIN)/python -m lvray.sweep sweeps/grid.yaml

test: install  ## every test that this machine can run
	$(BIN)/python -m pytest -q

test-slurm: install  ## whole sweeps as jobs of a real two-node Slurm on this machine: root, slurm-wlm, munge, iproute2; else skipped
	$(BIN)/python -m pytest -q -rs -m "$(SLURM)" tests/slurm

check: install  ## format, lint, types, floors, shell scripts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/shellcheck .ci/run slurm/*.sbatch tests/slurm/*.sh

install: $(INSTALLED)

$(INSTALLED): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "lvray needs Python 3.11 or newer, this is " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

clean:  ## removes what was installed; run folders stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
