# The same commands for a newcomer and for CI. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PACKAGES := protocol client agent controller simulators
# Three, for two cores: tests of real processes wait for half of their time.
PYTEST_JOBS ?= 3

.PHONY: help setup demo test check bench bench-fleet bench-chaos bench-delta bench-scale bench-rollout explore mutants fuzz \
	torture soak sbom lock schemas notebooks wheels clean test-packages

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP)  ## create .venv with everything installed

$(STAMP): requirements.txt $(addsuffix /pyproject.toml,$(PACKAGES))
	@tools/ensure_debian.sh python-venv
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (once, a minute or two)"
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
		$(foreach package,$(PACKAGES),-e ./$(package))
	@touch $@

demo: $(STAMP)  ## the whole loop on real recordings; DATA=scenario.toml runs your own
	@$(BIN)/edgeloop-sim run $(or $(DATA),watch) --out $(or $(OUT),demo-out)

test-packages:
	@tools/ensure_debian.sh mosquitto strace

test: $(STAMP) test-packages  ## every test
	@$(BIN)/pytest -n $(PYTEST_JOBS) --dist loadfile $(ARGS)

check: $(STAMP)  ## lint, types, layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(STAMP)  ## speed and size, each beside a floor measured in the same run
	@$(BIN)/python -m edgeloop_simulators.bench

bench-delta: $(STAMP)  ## bytes and apply time of updates as patches, beside zstd and bsdiff4
	@tools/ensure_debian.sh zstd
	@$(BIN)/python -m edgeloop_simulators.bench.delta $(ARGS)

bench-fleet: $(STAMP) test-packages  ## live devices by the thousand; DEVICES=100,1000 picks the sizes
	@$(BIN)/python -m edgeloop_simulators.live.bench_fleet $(DEVICES) $(ARGS)

bench-chaos: $(STAMP)  ## 1,000 devices under loss, partition, power cuts; DEVICES=, JOBS=
	@$(BIN)/python -m edgeloop_simulators.bench.chaos \
		--devices $(or $(DEVICES),1000) --jobs $(or $(JOBS),2) $(ARGS)

bench-scale: $(STAMP)  ## a day of large fleets in virtual time; DEVICES=1000,10000 chooses sizes
	@$(BIN)/python -m edgeloop_simulators.bench.scale $(if $(DEVICES),--devices $(DEVICES))

bench-rollout: $(STAMP)  ## good and bad rollouts by the thousand over simulated fleets; ROLLOUTS=100 is fewer
	@$(BIN)/python -m edgeloop_simulators.bench.rollout $(if $(ROLLOUTS),--rollouts $(ROLLOUTS)) $(ARGS)

explore: $(STAMP)  ## play SEEDS=100000 virtual worlds on JOBS=2 processes
	@$(BIN)/edgeloop-sim explore --seeds $(or $(SEEDS),100000) --jobs $(or $(JOBS),2) $(ARGS)

mutants: $(STAMP)  ## plant bugs in the real code; each must be found, JOBS=2
	@$(BIN)/edgeloop-sim mutants --seeds $(or $(SEEDS),1000) --jobs $(or $(JOBS),2) $(ARGS)

torture: $(STAMP) test-packages  ## an agent killed and starved at every step, CUTS=2000 RECORDS=1000000
	@$(BIN)/python -m edgeloop_simulators.torture --cuts $(or $(CUTS),2000) \
		--records $(or $(RECORDS),1000000) --jobs $(or $(JOBS),2) $(ARGS)

soak: $(STAMP)  ## 1,000 versions and 1,000,000 inferences through one agent; SWAPS=, INFERENCES=
	@$(BIN)/python -m edgeloop_simulators.soak \
		--swaps $(or $(SWAPS),1000) --inferences $(or $(INFERENCES),1000000) $(ARGS)

schemas: $(STAMP)  ## write the JSON Schemas, the OpenAPI description and the lifecycle in docs/spec
	@$(BIN)/python -m edgeloop_protocol.schemas docs/spec/schemas
	@$(BIN)/python -m edgeloop_agent.lifecycle_diagram docs/spec/lifecycle.md
	@$(BIN)/python -m edgeloop_simulators.virtual.scenario.schemas docs/spec/schemas
	@$(BIN)/python -m edgeloop_controller.control.schemas docs/spec/schemas
	@$(BIN)/python -m edgeloop_controller.api.openapi docs/spec/openapi.json

notebooks: $(STAMP)  ## run the notebooks in docs/ and write their outputs
	@$(BIN)/python tools/notebooks.py

fuzz: $(STAMP)  ## bytes of strangers into every decoder: RUNS=10000000 of each; findings in fuzz-found/
	@$(BIN)/python -m edgeloop_simulators.fuzz $(TARGETS) --runs $(or $(RUNS),10000000)

sbom: $(STAMP)  ## a CycloneDX bill of materials of each distribution: sbom/*.cdx.json
	@$(BIN)/python tools/sbom.py $(or $(OUT),sbom)

lock:  ## requirements.in -> requirements.txt (needs uv)
	@uv pip compile requirements.in --generate-hashes --no-header --no-annotate \
		--no-emit-index-url --no-emit-find-links --python-version 3.11 -q -o requirements.txt

wheels: $(STAMP)  ## ask the package index whether the agent's table of wheels is true
	@$(BIN)/python tools/wheels.py --check

clean:  ## remove .venv and what runs left behind
	@rm -rf $(VENV) demo-out .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
