# make demo: train on real data from scratch, then fine-tune at twice the resolution.
# make test: the tests. make parity: those against torch, timm and transformers.
# make tpu: programs for absent TPUs. make lint: style and types. All make and reuse .venv; tpu has
# its own, for where libtpu is installed JAX looks for TPUs at every start, and complains.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: demo test parity tpu lint

demo: .venv/installed
	$(BIN)/python -m vit_jax train --config=configs/quickstart.py --workdir=runs/demo/digits
	$(BIN)/python -m vit_jax train --config=configs/quickstart.py:runs/demo/digits \
		--workdir=runs/demo/digits16
	@echo "From scratch at 8x8 pixels, then fine-tuned at 16x16:"
	@$(BIN)/python -m vit_jax evaluate --weights=runs/demo/digits
	@$(BIN)/python -m vit_jax evaluate --weights=runs/demo/digits16

test: .venv/installed-for-test
	$(BIN)/python -m pytest -n 2 --ignore=tests/peers --ignore=tests/tpu

parity: .venv/installed-for-parity
	$(BIN)/python -m pytest -n 2 tests/peers

tpu: .venv-tpu/installed
	.venv-tpu/bin/python -m pytest tests/tpu

lint: .venv/installed-for-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

.venv/installed: setup.py constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) --editable .
	touch $@

.venv/installed-for-test: .venv/installed
	$(PIP) --editable '.[test]'
	touch $@

.venv/installed-for-parity: .venv/installed-for-test
	$(PIP) --editable '.[test,parity]'
	touch $@

.venv-tpu/installed: setup.py constraints.txt
	$(PYTHON) -m venv .venv-tpu
	$(PIP:.venv/%=.venv-tpu/%) --editable '.[test,tpu]'
	touch $@
