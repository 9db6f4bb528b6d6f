# make demo: train on real data from scratch, then fine-tune at twice the resolution.
# make test: the tests, within 8 minutes on 2 cores.
# make test-all: these, the slow ones and all of the following, within 25 minutes.
# make parity: tests against torch, timm and transformers.
# make tpu: programs for absent TPUs. make lint: style and types.
# make pods: the largest programs for absent TPUs, which take minutes each; not in test-all.
# make browser: the report of a run in Chromium (apt install chromium), at two widths; screenshots lie
# in screenshots/. RUN=DIR looks at the report of that run. Not in test-all.
# make slurm: the scripts of the pages under a Slurm of two nodes on this machine (apt install
# slurm-wlm munge; it starts their daemons, as root, so it is not in test-all).
# All make and reuse .venv. `tpu` adds libtpu in an environment above it: where libtpu is installed,
# JAX looks for TPUs at every start and complains.
PYTHON ?= python3
BIN := .venv/bin
# Into an environment, this package with some extras. pip itself would compile on one core.
INSTALL = $(1)/bin/python -m pip --disable-pip-version-check install --quiet --no-compile \
	--constraint constraints.txt --editable $(2) \
	&& { $(1)/bin/python -m compileall -q -j 0 $(1)/lib > /dev/null 2>&1 || true; }
PACKAGES = "import sysconfig; print(sysconfig.get_path('purelib'))"
# Whoever starts Python without compiled files would compile all tests in each process.
unexport PYTHONDONTWRITEBYTECODE
# Tests of one file share runs and compiled programs, and so one process. Files start in the order
# of tests/conftest.py, not by their numbers of tests.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
TPU_PYTEST := .venv-tpu/bin/python -m pytest -n 2 tests/tpu
OWN := $(addprefix --ignore=tests/,browser peers slurm tpu)

.PHONY: demo test test-slow test-all parity tpu pods browser slurm lint

demo: .venv/installed
	$(BIN)/python -m vit_jax train --config=configs/quickstart.py --workdir=runs/demo/digits
	$(BIN)/python -m vit_jax train --config=configs/quickstart.py:runs/demo/digits \
		--workdir=runs/demo/digits16
	@echo "From scratch at 8x8 pixels, then fine-tuned at 16x16:"
	@$(BIN)/python -m vit_jax evaluate --weights=runs/demo/digits
	@$(BIN)/python -m vit_jax evaluate --weights=runs/demo/digits16

test: .venv/installed-for-test
	$(PYTEST) $(OWN) -m "not slow"

test-slow: .venv/installed-for-test
	$(PYTEST) $(OWN) -m slow

# One after the other, also with make -j: each uses both cores, and `parity` adds to .venv.
test-all:
	$(MAKE) lint
	$(MAKE) test
	$(MAKE) test-slow
	$(MAKE) parity
	$(MAKE) tpu

parity: .venv/installed-for-parity
	$(PYTEST) tests/peers

tpu: .venv-tpu/installed
	$(TPU_PYTEST) -m "not pods"

pods: .venv-tpu/installed
	$(TPU_PYTEST) -m pods

browser: .venv/installed-for-browser
	RUN=$(RUN) $(BIN)/python -m pytest tests/browser

slurm: .venv/installed-for-test
	$(BIN)/python -m pytest tests/slurm

lint: .venv/installed-for-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

.venv/installed: setup.py constraints.txt
	$(PYTHON) -m venv .venv
	$(call INSTALL,.venv,.)
	touch $@

.venv/installed-for-test: .venv/installed
	$(call INSTALL,.venv,'.[test]')
	touch $@

.venv/installed-for-parity: .venv/installed-for-test
	$(call INSTALL,.venv,'.[parity]')
	touch $@

.venv/installed-for-browser: .venv/installed-for-test
	$(call INSTALL,.venv,'.[browser]')
	touch $@

.venv-tpu/installed: .venv/installed-for-test
	$(PYTHON) -m venv .venv-tpu
	$(BIN)/python -c $(PACKAGES) > $$(.venv-tpu/bin/python -c $(PACKAGES))/beneath.pth
	$(call INSTALL,.venv-tpu,'.[tpu]')
	touch $@
