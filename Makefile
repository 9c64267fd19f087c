# Two commands do everything: `make demo` and `make test`; the others are their parts. Each makes
# .venv on first use. ARGS go to pytest, as in: make test ARGS='tests/ledger -k head'. ALL=1 runs the
# pairs and the random cases that the tests leave out otherwise (CONTRIBUTING.md).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INTO ?= runs/clinic
ARGS ?=
ALL ?=
RUN := PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(if $(ALL),NACRE_ALL=1)

.PHONY: demo federation test dev check-fast lint types laws docs format bench gpu-check clean help
help: ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*## /\t/'

# pip would compile all that it installs on one core; every core compiles, and what is imported.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
COMPILE := $(BIN)/python -m compileall -qq -j 0 -x '/(tests|transformers/models)/' $(VENV)/lib || true

# The stamps hold what was installed: a second call starts at once.
$(VENV)/base.stamp: pyproject.toml constraints.txt nacre/core/normals/_normals.c
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) -e .
	@$(COMPILE)
	@touch $@

$(VENV)/dev.stamp: pyproject.toml constraints.txt nacre/core/normals/_normals.c
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) -e '.[dev]'
	@$(COMPILE)
	@touch $@ $(VENV)/base.stamp

demo: $(VENV)/base.stamp ## all five techniques on real data, with a report: runs/clinic/report.html
	@if [ -e '$(INTO)' ]; then \
	  $(BIN)/nacre run recipes/clinic.yaml --into '$(INTO)' || [ $$? -eq 2 ]; \
	else \
	  $(BIN)/nacre run recipes/clinic.yaml --into '$(INTO)'; \
	fi

dev: $(VENV)/dev.stamp ## the environment for work on the code, and the hooks that run before each commit
	$(BIN)/pre-commit install

federation: $(VENV)/dev.stamp ## three parties and a server over Flower on this machine, with TLS and keys
	$(RUN) $(BIN)/python scripts/federation $(ARGS)

test: $(VENV)/dev.stamp ## every check that CI runs; with ARGS=..., those tests alone
	$(RUN) $(if $(strip $(ARGS)),pytest $(ARGS),bash scripts/check)

check-fast: $(VENV)/dev.stamp ## format, lint, import contract and the fast tests, in a minute and a half
	$(RUN) bash scripts/check-fast $(ARGS)

lint: $(VENV)/dev.stamp ## format, lint and import contract
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) lint-imports

types: $(VENV)/dev.stamp ## pyright, strict
	$(RUN) pyright

laws: $(VENV)/dev.stamp ## what every part of a kind must fulfil, and the closed forms beside it; ALL=1 for every pair
	$(RUN) pytest tests/laws tests/oracles $(ARGS)

docs: $(VENV)/dev.stamp ## write the generated pages, then run what every page shows
	$(BIN)/python scripts/docs
	$(RUN) pytest tests/stories/test_docs.py $(ARGS)

format: $(VENV)/dev.stamp ## rewrite the code as ruff likes it
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

bench: $(VENV)/dev.stamp ## the figures of the demo and of the fault tests (long)
	$(BIN)/python benchmarks/demo.py
	$(BIN)/python benchmarks/faults.py

gpu-check: $(VENV)/dev.stamp ## exactness and cost of private steps on a CUDA device, in under eight minutes
	PATH="$(CURDIR)/$(BIN):$$PATH" bash scripts/gpu_check $(ARGS)

clean: ## remove the environment and caches; runs and ledgers stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis build *.egg-info
