# `make demo`, `make smoke` and `make test` need Python 3.11 or newer and make, and nothing else. A second call installs nothing.

PYTHON ?= python3
VENV ?= .venv
WORKDIR ?= runs/demo
STUDY ?= runs/smoke
PYTEST_ARGS ?=

VERSION := $(shell $(PYTHON) -c "import sys; print('%d.%d' % sys.version_info[:2])")
LOCK := $(wildcard requirements/python$(VERSION).txt)
PIP_INSTALL = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(if $(LOCK),--constraint $(LOCK))
CORE := $(VENV)/.core-$(VERSION)
TEST := $(VENV)/.test-$(VERSION)

.DEFAULT_GOAL := help
.PHONY: help demo smoke test exhaustive faults fuzz lint wheel lock check-python

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  settings: PYTHON=$(PYTHON) VENV=$(VENV) WORKDIR=$(WORKDIR) STUDY=$(STUDY) PYTEST_ARGS='$(PYTEST_ARGS)'"

demo: $(CORE) ## train on synthetic patches, evaluate, explain; writes WORKDIR/report.html
	@$(VENV)/bin/python -m experiments.demo --workdir=$(WORKDIR)

smoke: $(CORE) ## a small study of synthetic patches: networks, classical models, comparison; STUDY names its folder
	@$(VENV)/bin/python -m experiments.reproduce --smoke --workdir=$(STUDY)

test: $(TEST) ## the test suite; PYTEST_ARGS are passed on
	@$(VENV)/bin/python -m pytest $(PYTEST_ARGS)

exhaustive: $(TEST) ## the tests that `make test` leaves out because they take minutes
	@$(VENV)/bin/python -m pytest -m exhaustive $(PYTEST_ARGS)

faults: $(TEST) ## kill jobs at random moments and compare what they end with
	@$(VENV)/bin/python tests/faults/campaign.py

fuzz: $(TEST) ## 20,000 damaged files for every reader; goes on where it was stopped
	@PYTHONPATH=.:tests $(VENV)/bin/python -m fuzz.campaign

lint: $(TEST) ## ruff
	@$(VENV)/bin/python -m ruff check .

# setuptools copies into build/lib and never removes from there: a renamed module would live on in the wheel.
wheel: $(CORE) ## dist/pcamjax-*.whl
	@rm -rf build/lib build/bdist.* dist
	@$(VENV)/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	@ls dist/*.whl

lock: check-python ## renew the pinned set of this Python version from the newest releases
	@echo "Resolving the newest releases for Python $(VERSION) in build/lock (minutes, about 3 GB) ..."
	@rm -rf build/lock && $(PYTHON) -m venv build/lock
	@build/lock/bin/python -m pip install --quiet --upgrade --upgrade-strategy eager '.[test]'
	@{ echo "# What Python $(VERSION) is tested with: core and test extra, for pip's -c."; \
	   echo "# Made by: make lock PYTHON=python$(VERSION)"; \
	   build/lock/bin/python -m pip freeze --all --exclude pip --exclude pcamjax; } > build/lock/freeze.txt
	@mv build/lock/freeze.txt requirements/python$(VERSION).txt && rm -rf build/lock
	@echo "Wrote requirements/python$(VERSION).txt"

# The stamps carry the Python version, so that another PYTHON never takes an environment that is not its own.
$(CORE): setup.py $(LOCK) | check-python
	@echo "Installing pcamjax into $(VENV): $(or $(LOCK),newest releases), about 1 GB, a minute or two ..."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP_INSTALL) --editable .
	@touch $@

$(TEST): $(CORE)
	@echo "Installing the test tools into $(VENV), TensorFlow and Keras among them: about 1.5 GB, a minute or two ..."
	@$(PIP_INSTALL) --editable '.[test]'
	@touch $@

check-python:
	@$(PYTHON) -c "import sys; sys.exit(0 if sys.version_info >= (3, 11) else \
	  'pcamjax needs Python 3.11 or newer; $(PYTHON) is $(VERSION). Name another: make PYTHON=python3.12 ...')"
	@test ! -x $(VENV)/bin/python || $(VENV)/bin/python -c "import sys; sys.exit(0 if \
	  '%d.%d' % sys.version_info[:2] == '$(VERSION)' else \
	  '$(VENV) holds Python %d.%d, not $(VERSION). Remove it, or name another: make VENV=.venv-$(VERSION) ...' \
	  % sys.version_info[:2])"
	@test -n "$(LOCK)" || echo "Python $(VERSION) is not tested: taking the newest releases instead of a pinned set."
