# Two commands do everything a newcomer needs: `make demo` and `make test`.
#
# PIP_OPTIONS passes options to every pip call. A bare torch on Linux brings several GB of
# CUDA packages; for a CPU-only build point pip at PyTorch's CPU wheels, for example
#   make demo PIP_OPTIONS="--extra-index-url <PyTorch's CPU wheel index>"
PYTHON ?= python3
PIP_OPTIONS ?=
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= demo

.PHONY: demo test test-slow check bench clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(PIP_OPTIONS) --constraint constraints.txt --editable ".[test]"
	touch $@

# The main job with its default configuration; prints where the report is.
demo: $(VENV)/.installed
	$(BIN)/superpose run --out $(DEMO)

# Everything that CI checks: format, lint, types, then the suite (doctests included).
test: check
	$(BIN)/pytest -m "not slow" -n 2 --dist loadfile

# The tests that take minutes each.
test-slow: $(VENV)/.installed
	$(BIN)/pytest -m slow

check: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: $(VENV)/.installed
	$(BIN)/python benchmarks/engine.py

clean:
	rm -rf $(VENV) $(DEMO)
