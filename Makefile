# make demo: train on digits beside scikit-learn's MLP. make test: the whole suite. Both make .venv first.
.DEFAULT_GOAL := help
.PHONY: help demo test test-fast test-oldest coverage fuzz lint format bench clean
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
OLDEST := .venv-oldest

help:  ## list what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /: /'

# The stamp is written last: an interrupted installation starts over.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	@touch $@

demo: $(READY)  ## train on digits beside scikit-learn's MLP, write the loss curve
	@$(BIN)/python examples/demo.py

test: $(READY)  ## run the test suite
	@$(BIN)/python -m pytest --numprocesses=2 $(ARGS)

# Files of slow tests alone are left out by name: to import them takes as long as many tests.
test-fast: $(READY)  ## run the tests that are not slow, in less than a minute
	@$(BIN)/python -m pytest --numprocesses=2 -m "not slow" $(ARGS) --ignore=tests/fuzz --ignore=tests/stacking/test_processes.py \
		--ignore=tests/stacking/test_failures.py --ignore=tests/estimator/test_every_option.py

$(OLDEST)/.ready: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-oldest.txt --editable '.[test]'
	@touch $@

test-oldest: $(OLDEST)/.ready  ## run the test suite on the oldest versions of its dependencies
	@$(OLDEST)/bin/python -m pytest --numprocesses=2 $(ARGS)

# The two tests left out count interrupts in a few seconds; under coverage too few of them fit in.
coverage: $(READY)  ## run the test suite slowly, list the lines that no test reaches
	@$(BIN)/python -m pytest --numprocesses=2 --cov=sk_mlp $(ARGS) \
		--deselect tests/stacking/test_failures.py::test_no_interrupt_of_a_search_is_swallowed \
		--deselect tests/estimator/test_surroundings.py::test_interrupts_leave_everything_as_it_was

fuzz: $(READY)  ## try more than 10,000 random calls
	@$(BIN)/python -m pytest --numprocesses=2 --hypothesis-profile=long tests/fuzz $(ARGS)

lint: $(READY)  ## check style, spelling and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/codespell
	@$(BIN)/mypy

format: $(READY)  ## put style right
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(READY)  ## time fits beside scikit-learn, skorch and a torch loop
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	@$(BIN)/python -m benchmarks.fit $(ARGS)
	@$(BIN)/python -m benchmarks.options $(ARGS)
	@$(BIN)/python -m benchmarks.predict $(ARGS)
	@$(BIN)/python -m benchmarks.search $(ARGS)

clean:  ## remove the environment and caches
	rm -rf $(VENV) $(OLDEST) .coverage* .pytest_cache .ruff_cache .mypy_cache
