# Two commands do everything: `make demo` and `make test`. Both make .venv on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INTO ?= runs/clinic

.PHONY: demo test check format bench clean help
help: ## this list
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*## /\t/'

# The stamps hold what was installed: a second call starts at once.
$(VENV)/base.stamp: pyproject.toml constraints.txt nacre/core/_normals.c
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/dev.stamp: pyproject.toml constraints.txt nacre/core/_normals.c
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/base.stamp

demo: $(VENV)/base.stamp ## all five techniques on real data, with a report: runs/clinic/report.html
	@if [ -e '$(INTO)' ]; then \
	  $(BIN)/nacre run recipes/clinic.yaml --into '$(INTO)' || [ $$? -eq 2 ]; \
	else \
	  $(BIN)/nacre run recipes/clinic.yaml --into '$(INTO)'; \
	fi

test: $(VENV)/dev.stamp ## every check that CI runs
	PATH="$(CURDIR)/$(BIN):$$PATH" bash scripts/check

format: $(VENV)/dev.stamp ## rewrite the code as ruff likes it
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

bench: $(VENV)/dev.stamp ## the figures of the demo and of the fault tests (long)
	$(BIN)/python benchmarks/demo.py
	$(BIN)/python benchmarks/faults.py

clean: ## remove the environment and caches; runs and ledgers stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis build *.egg-info
