# The project's words. Each sets up what it needs: a virtual environment in .venv, from Python and the package index.

PYTHON ?= python3
BIN := .venv/bin
BUDGET ?= speedup>=1.8x, memory<=120MB, size<=30MB, loss<=1%
MODEL ?= all-MiniLM-L6-v2
OUT ?= build/minilm.bundle
TABLES := fitted table engines native rotation techniques fewer_bits search recommend canary service serve_table image_table prediction

ENGINES := native,onnxruntime,openvino,mnn,ncnn,tvm,coreml,litert,executorch

ENGINE := $(shell find engine -type f \( -name '*.cpp' -o -name '*.[hi]*' -o -name CMakeLists.txt \))

.PHONY: help setup fit test engines check bench bench-serve docs arm sanitize fuzz fuzz-api clean

help: ## say what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: .venv/fit.stamp ## install tightrope with the workshop and OpenVINO into .venv

fit: setup ## fit MODEL to BUDGET on this machine; ends with a table and the path of a report page
	$(BIN)/tightrope fit $(MODEL) --budget "$(BUDGET)" --out $(OUT) --force

test: .venv/dev.stamp ## run all tests that this machine can run
	$(BIN)/python -m pytest -n auto --dist loadfile

engines: .venv/engines/stamp ## install all engines into an environment of their own and test them; 45 minutes at most
	TIGHTROPE_REQUIRE=$(ENGINES) TIGHTROPE_EXTRAS=1 timeout 2700 .venv/engines/bin/python -m pytest -n auto --dist load \
		tests/conformance tests/workshop/convert tests/workshop/benches tests/workshop/comparison tests/test_extras.py

check: .venv/dev.stamp ## style, types, layers, and that the docs' tables are those of the stored measurements
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@set -e; for table in $(TABLES); do $(BIN)/python -m benchmarks.$$table --check; done

bench: .venv/dev.stamp ## compare with the peers, each in its own environment; takes about 25 minutes
	$(BIN)/python -m benchmarks.peers

bench-serve: .venv/dev.stamp ## measure the server, by itself and beside its peers; takes about 25 minutes
	$(BIN)/python -m benchmarks.serve

docs: .venv/dev.stamp ## write the tables of README and docs anew from the stored measurements
	@set -e; for table in $(TABLES); do $(BIN)/python -m benchmarks.$$table --write; done

arm: ## build the engine for aarch64 and check it under QEMU as three processors
	bash engine/arm.sh

sanitize: .venv/dev.stamp ## run the engine's tests against builds with sanitizers
	PYTHON=$(BIN)/python bash engine/sanitize.sh

fuzz: .venv/dev.stamp ## fuzz the engine's readers of files and texts, a minute each
	PYTHON=$(BIN)/python bash engine/fuzz.sh

fuzz-api: .venv/dev.stamp ## fuzz the server's APIs by its OpenAPI document, two minutes (TIGHTROPE_FUZZ_S, TIGHTROPE_FUZZ_SEED)
	$(BIN)/python -m pytest -s tests/clients/fuzz_openapi.py

clean: ## remove the environment and everything that was built
	rm -rf .venv build dist

.venv/bin/python:
	$(PYTHON) -m venv .venv

# This build of torch first, so that nothing pulls a larger one. TVM and the tests' tools after the others: a package of
# LiteRT's converter (xdsl) is pinned to an older typing-extensions than theirs, and works with theirs.
.venv/engines/stamp: pyproject.toml $(ENGINE)
	$(PYTHON) -m venv .venv/engines
	.venv/engines/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	.venv/engines/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[torch,engines]'
	.venv/engines/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,tvm]'
	@touch $@

.venv/fit.stamp: .venv/bin/python pyproject.toml $(ENGINE)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fit,openvino]'
	@touch $@

.venv/dev.stamp: .venv/bin/python pyproject.toml $(ENGINE)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ .venv/fit.stamp
