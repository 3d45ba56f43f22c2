# Debian packages: python3 (3.11 or newer), python3-venv, make; chromium too for the browser tests, else skipped.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo test lint types bench bench-featurize bench-ingest clean
help: ## say what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

$(READY): setup.cfg pyproject.toml requirements-dev.txt
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "install Debian's python3-venv"; exit 1; }
	@echo "setting up $(VENV) (a few minutes the first time)"
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY) ## the whole road on generated pictures, offline; opens no port to others
	@$(BIN)/capstan demo $(DEMO_FLAGS)

test: $(READY) ## all tests, three at a time; TEST_FLAGS=--full for more examples of each kind
	@$(BIN)/python -m pytest -n 3 --dist loadgroup $(TEST_FLAGS)

lint: $(READY) ## format, lint, import layers
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@$(BIN)/lint-imports

types: $(READY) ## mypy, strict
	@$(BIN)/mypy

bench-featurize: $(READY) ## speed of featurize beside Keras and PyTorch (gigabytes, the first time)
	@$(BIN)/python -m benchmarks.featurize --peer $(BENCH_FLAGS)

bench-ingest: $(READY) ## speed of ingest beside img2dataset (needs nginx-light and Python 3.12)
	@$(BIN)/python -m benchmarks.ingest kept new-connections tls tls-new resized $(BENCH_FLAGS)

bench: $(READY) ## speed benchmarks of training and captioning, a quarter of an hour
	@$(BIN)/python -m benchmarks.train
	@$(BIN)/python -m benchmarks.generate
	@$(BIN)/python -m benchmarks.scaling

clean: ## remove the environment and all runs
	rm -rf $(VENV) .venv-peer .venv-img2dataset runs build *.egg-info
