# make demo | test | test-all | test-interop | lint. Each sets up its environment the first time and re-uses it afterwards.
PYTHON ?= python3.10
# Another Python gets an environment of its own, without Lava.
VENV ?= $(if $(filter python3.10,$(PYTHON)),.venv,.venv-$(PYTHON))
BIN := $(VENV)/bin
# SpikingJelly 2.0 needs a later Python than Lava supports: an environment of its own.
INTEROP_PYTHON ?= python3.11
INTEROP_VENV ?= .venv-interop
DEMO := runs/demo

.PHONY: demo test test-all test-interop coverage lint setup setup-interop schema clean

# $(call set-up,ENVIRONMENT,PYTHON,EXTRA,EXTRA). pyenv hides an interpreter that .python-version does not name.
# The stamp names the checkout that the environment was installed from: a re-used one is pointed at this one.
define set-up
	@if [ ! -x $(1)/bin/python ]; then $(2) -m venv $(1) 2>/dev/null || PYENV_VERSION=$(2:python%=%) $(2) -m venv $(1); fi
	@stamp=$(1)/.mksgn-installed; \
	if [ "$$(cat $$stamp 2>/dev/null)" != "$(CURDIR)" ] || [ pyproject.toml -nt $$stamp ] || [ constraints.txt -nt $$stamp ]; then \
		echo "setting up $(1) (one to two minutes the first time)"; \
		$(1)/bin/python -m pip install -q -c constraints.txt -e '.[$(3),$(4)]' && echo "$(CURDIR)" > $$stamp; \
	fi
endef

setup:
	$(call set-up,$(VENV),$(PYTHON),lava,dev)

setup-interop:
	$(call set-up,$(INTEROP_VENV),$(INTEROP_PYTHON),interop,dev)

demo: setup
	$(BIN)/torchrun --standalone --nproc-per-node 2 -m mksgn.train demo --data synthetic --out $(DEMO)
	$(BIN)/mksgn-export $(DEMO)/model.pt --to nir --quantize 8 --calibration synthetic --verify 20
	$(BIN)/mksgn-bench run $(DEMO)/model.nir --data synthetic --backend lava --precision fixed -o $(DEMO)
	$(BIN)/mksgn-bench check $(DEMO)

# Two workers share the tests, a file at a time. What kills processes or counts what is left of them runs alone afterwards.
# One thread in torch, as the commands set it: the children that tests start share two cores with Lava's Processes.
TIER := --fast
define run-tests
	$(1) -m pytest $(TIER) -m 'not serial' -n 2 --dist loadfile
	$(1) -m pytest $(TIER) -m serial
endef

test test-all test-interop coverage: export OMP_NUM_THREADS = 1

# The fast tier: every kind of test, in under 4 minutes on two cores.
test: setup
	$(call run-tests,$(BIN)/python)

# Everything: the slow tests too, and all examples of every property.
test-all: TIER :=
test-all: setup
	$(call run-tests,$(BIN)/python)

# All that needs no Lava on a later Python, and our files in SpikingJelly, snnTorch and norse. TIER= runs everything.
test-interop: export MKSGN_INTEROP = 1
test-interop: setup-interop
	$(INTEROP_VENV)/bin/python -m pytest $(TIER) -m 'not serial' -n 2 --dist loadfile

# The fast tier in this process alone: a report of the lines and branches that it reaches.
coverage: setup
	$(BIN)/python -m pytest $(TIER) --cov=mksgn --cov-branch --cov-report=term:skip-covered --cov-report=html:runs/coverage

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

schema: setup
	$(BIN)/python -m mksgn.bench.record > mksgn/bench/data/run.schema.json
	$(BIN)/python -m mksgn.bench.energy_models > mksgn/bench/data/energy_models.schema.json
	$(BIN)/python -m mksgn.bench.claims > mksgn/bench/data/claims.schema.json

clean:
	rm -rf runs .mypy_cache .ruff_cache .pytest_cache
