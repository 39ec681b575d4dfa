# Everything the project does, one word each. Needs make and Python 3.11 or newer; uv is used when it works.
#   make lab                        open the lessons in JupyterLab (a copy of them, in my-lessons/)
#   make lab ARGS="--no-browser"    the same, passing options on
#   make test ARGS="tests/engine -k expand"
PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=

PY    := $(VENV)/bin/python
STAMP := $(VENV)/.kmemlab-stamp

.PHONY: help env lab test lint format lessons bench lock all clean

help:
	@echo "make lab      open the lessons in JupyterLab (my-lessons/ holds your copy)"
	@echo "make test     run every test, the lessons included"
	@echo "make lint     ruff (check and format) and mypy"
	@echo "make format   let ruff rewrite what lint complains about, where it can"
	@echo "make lessons  run every lesson from top to bottom and store its outputs"
	@echo "make bench    measure the engine"
	@echo "make lock     renew requirements.lock and what is made from it (needs uv and a network)"
	@echo "make all      lint, then test"
	@echo "make clean    remove the environment and what was built"

env: $(STAMP)

# pyenv puts a file called uv on PATH that fails when the chosen Python has none: ask it for its version.
$(STAMP): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "kmemlab needs Python 3.11 or newer, and there is no '$(PYTHON)'. Name one: make env PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "kmemlab needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) -V 2>&1). Name another one: make env PYTHON=python3.12" >&2; exit 1; }
	@if uv --version >/dev/null 2>&1; then \
	  echo "Building $(VENV) with uv"; \
	  $(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	    uv venv --quiet --clear --no-python-downloads --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" $(VENV) || exit 1; \
	  uv pip sync --quiet --python $(PY) --require-hashes requirements.lock && \
	  uv pip install --quiet --python $(PY) --no-deps --no-build-isolation --editable .; \
	else \
	  echo "Building $(VENV) with pip (about a minute)"; \
	  $(PYTHON) -m venv --clear $(VENV) && \
	  $(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock && \
	  $(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .; \
	fi
	@touch $@

lab: $(STAMP)
	$(VENV)/bin/kmemlab lab my-lessons $(ARGS)

# In the order they are collected, so the browser's files begin: the longest of them has few tests, and would else be last.
test: $(STAMP)
	$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: $(STAMP)
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

lessons: $(STAMP)
	$(PY) tools/run_lessons.py $(ARGS)

bench: $(STAMP)
	$(PY) benchmarks/bench.py $(ARGS)
	$(PY) benchmarks/bench_slab.py
	$(PY) benchmarks/bench_browser.py

lock:
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes pyproject.toml --all-extras -o requirements.lock $(ARGS)
	$(MAKE) env
	$(PY) tools/binder_requirements.py

all: lint test

clean:
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
