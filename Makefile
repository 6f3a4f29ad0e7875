# Needs Python 3.11, 3.12 or 3.13 and make; everything else is installed into .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
SCALE ?= 1
CONFIG ?= demo
RUN ?= runs/demo
PORT ?= 8000
FILE ?=
MODEL ?= $(if $(wildcard $(RUN)/model),$(RUN)/model,tiny)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
HEAD := $(BIN)/uniemo head
FULLSIZE := benchmarks/bench_fullsize.py
BENCH_GPU := benchmarks/bench_gpu.py
# cpu: the tests and the benchmark of GPUs try their logic at small sizes, without one
UNIEMO_DEVICE ?= cuda
# cheaper hops from the proxy to the model; bodies up to 4 MB without a detour over shared memory; replicas with
# the priority of other processes (Ray gives its workers less); log lines are not held back
SERVE_ENV := RAY_SERVE_THROUGHPUT_OPTIMIZED=1 RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE=1 RAY_max_direct_call_object_size=4000000 RAY_worker_niceness=0
# HAProxy, which comes with Ray, kept to this machine; PROXY=python: Serve's own proxy, which is slower
PROXY ?= $(if $(filter Linux,$(shell uname -s)),haproxy,python)
HAPROXY_ENV := RAY_SERVE_ENABLE_HA_PROXY=1 RAY_SERVE_HAPROXY_BINARY_PATH='$(CURDIR)/$(BIN)/uniemo-haproxy'
PROXY_ENV := $(if $(filter haproxy,$(PROXY)),$(HAPROXY_ENV),RAY_SERVE_ENABLE_DIRECT_INGRESS=0)
# as many test processes as cores; the tests of the shared Ray keep to one of them, and so do the tests that
# start processes themselves
PYTEST := $(BIN)/python -m pytest -q -n auto --maxprocesses 4
USUAL := not integration and not gpu
# A test that fails beside others on a busy machine runs once more, alone. A test whose process ended was repeated by
# another one; when none is left to repeat, pytest ends with 5
ALONE := $(BIN)/python -m pytest -q -n 0 -m '$(USUAL)' --last-failed --last-failed-no-failures none
FAST := not ray and not slow and not integration and not gpu

export HF_HUB_OFFLINE ?= 1
export PYTHONUNBUFFERED := 1

.DEFAULT_GOAL := help
.PHONY: help install demo examples test test-gpu lint check format bench bench-serve bench-fullsize bench-gpu serve docs cluster-check cluster-rehearsal mutants s3-up s3-down clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## Create .venv with everything pinned in constraints.txt

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

demo: $(STAMP) ## Run the whole feedback loop on this machine (again: skip what is done; CONFIG=name or path)
	$(HEAD) --state .ray-head/demo run -- $(BIN)/uniemo submit --name demo feedback_loop -- \
		--config '$(CONFIG)' --set 'run=$(abspath $(RUN))'

examples: $(STAMP) ## Execute the notebooks in examples/ and store their outputs: about two minutes
	$(BIN)/python -m tools.notebooks examples/*.ipynb

test: $(STAMP) ## Run all tests but those that need minutes or a GPU
	$(PYTEST) -m '$(USUAL)' || { test $$? -eq 1 && echo "What failed runs once more, alone:" && { $(ALONE) || test $$? -eq 5; }; }

test-gpu: $(STAMP) ## Run the tests of GPUs, on one or two (UNIEMO_DEVICE=cpu: their logic, without one)
	UNIEMO_DEVICE='$(UNIEMO_DEVICE)' $(BIN)/python -m pytest -q -rs -n 0 -m gpu tests/gpu

lint: $(STAMP) ## Format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint ## Format, lint, types and the fast tests
	$(PYTEST) -m '$(FAST)'

format: $(STAMP) ## Format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) ## Measure against bare baselines
	set -e; for file in $(filter-out $(FULLSIZE) $(BENCH_GPU),$(wildcard benchmarks/bench_*.py)); do $(BIN)/python "$$file"; done

bench-fullsize: $(STAMP) ## One step at the paper's size on this CPU: up to 20 GB of memory
	$(BIN)/python $(FULLSIZE)

bench-gpu: $(STAMP) ## Images/s, memory and busy share of one GPU, against bare loops (UNIEMO_DEVICE=cpu: its logic)
	UNIEMO_DEVICE='$(UNIEMO_DEVICE)' $(BIN)/python $(BENCH_GPU) $(if $(filter cpu,$(UNIEMO_DEVICE)),--tiny)

bench-serve: $(STAMP) ## Measure the service alone: half an hour (SCALE=0.1: a tenth; MODEL=folder; PROXY=python)
	PATH='$(CURDIR)/$(BIN)':"$$PATH" $(SERVE_ENV) $(PROXY_ENV) $(BIN)/python benchmarks/bench_serve.py --model '$(MODEL)' --scale $(SCALE)

serve: $(STAMP) ## Serve the demo's model, else the shipped one, on port 8000 of this machine (MODEL=folder PORT=number)
	@test '$(MODEL)' = tiny || test -d '$(MODEL)' || { echo "no model folder $(MODEL): give another MODEL=folder, or none"; exit 2; }
	@$(BIN)/python -m uniemo_ray.service.port 127.0.0.1 '$(PORT)'
	@echo "serving $(MODEL) at http://127.0.0.1:$(PORT)"
	$(SERVE_ENV) $(PROXY_ENV) $(HEAD) --state .ray-head/serve run -- sh -c 'serve start --http-host 127.0.0.1 --http-port $(PORT) \
		&& exec serve run --working-dir . uniemo_ray.service.app:build_app "model=$$1"' serve \
		'$(if $(filter tiny,$(MODEL)),tiny,$(abspath $(MODEL)))'

docs: $(VENV)/.docs ## Build the documentation: build/site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo 'open build/site/index.html; with search: python3 -m http.server -d build/site'

$(VENV)/.docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

cluster-check: $(VENV)/.cluster ## Check cluster/ without a cloud (UNIEMO_K8S_SCHEMAS=folder of custom resources' schemas)
	$(BIN)/python cluster/check.py

cluster-rehearsal: $(VENV)/.cluster ## The loop on the pools of cluster/kuberay/, from no machine to all and back: ten minutes, no cloud
	$(BIN)/python -m tools.rehearsal

$(VENV)/.cluster: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cluster]'
	touch $@

mutants: $(VENV)/.mutants ## Break the code in small ways and count what the tests notice (FILE=uniemo_ray/losses.py)
	$(BIN)/python -m tools.mutants $(FILE)

$(VENV)/.mutants: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[mutants]'
	touch $@

s3-up: ## Start a real S3 server for the tests (Ceph; needs root and Debian packages)
	$(PYTHON) cluster/local_s3.py start

s3-down: ## End it and remove its data
	$(PYTHON) cluster/local_s3.py stop

clean: ## Remove the environment and caches; runs/ and data/ stay
	-test ! -d .ray-head || for state in .ray-head/*; do $(HEAD) --state "$$state" stop; done
	rm -rf $(VENV) .ray-head .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
