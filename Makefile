# Everything a developer does, and CI does the same. `make help` lists the targets.
PYTHON ?= python3
PINS := -c requirements/constraints.txt
PIP := install -qq --disable-pip-version-check $(PINS)
DEMO := .venv
TEST := .venv-test

.DEFAULT_GOAL := help
.PHONY: help demo demo-once test check format proto bench-serving bench-protocols bench-deps triton wheel clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

demo: $(DEMO)/.ready  ## serve the sample models, send them real images, keep serving until Ctrl-C
	@$(DEMO)/bin/python examples/demo.py

demo-once: $(DEMO)/.ready  ## the same, and end by itself
	@$(DEMO)/bin/python examples/demo.py --once

test: $(TEST)/.ready  ## run all tests
	@$(TEST)/bin/python -m pytest

check: $(TEST)/.ready  ## formatting, lint, types, layers
	@$(TEST)/bin/ruff format --check .
	@$(TEST)/bin/ruff check .
	@$(TEST)/bin/mypy
	@$(TEST)/bin/lint-imports

format: $(TEST)/.ready  ## format the code
	@$(TEST)/bin/ruff format .
	@$(TEST)/bin/ruff check --fix .

proto: $(TEST)/.ready  ## make descriptors and stubs from serving/wire/*.proto
	@$(TEST)/bin/python serving/wire/generate.py

bench-serving: $(TEST)/.ready  ## measure against the bare runtime, Triton, KServe and MLServer
	@$(TEST)/bin/python -m crossfade.benchmarks.serving $(BENCH)

bench-protocols: $(TEST)/.ready  ## measure what each protocol costs for the same tensor
	@$(TEST)/bin/python -m crossfade.benchmarks.protocols $(BENCH)

bench-deps:  ## what the benchmarks need of the system: h2load, the load generator
	apt-get install -y nghttp2-client

triton: $(TEST)/.ready  ## install a real Triton into .bench/, for the tests and benchmarks that compare with it
	@$(TEST)/bin/python -m crossfade.benchmarks.peers.triton

wheel: $(TEST)/.ready  ## build the wheel and the sdist into dist/
	@rm -rf build dist
	@$(TEST)/bin/python -m build --no-isolation

clean:  ## remove what the targets made
	rm -rf $(DEMO) $(TEST) .bench build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache \
	    .import_linter_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

# The demo needs no TensorFlow and no torch: two small runtimes and a client.
$(DEMO)/.ready: pyproject.toml requirements/constraints.txt
	@echo "making $(DEMO) (about half a minute) ..."
	@$(call venv,$(DEMO))
	@$(DEMO)/bin/pip $(PIP) -e '.[onnx,tflite]' 'tritonclient[grpc]'
	@touch $@

$(TEST)/.ready: pyproject.toml requirements/constraints.txt
	@echo "making $(TEST) with TensorFlow and all that the tests need (some minutes) ..."
	@$(call venv,$(TEST))
	@$(TEST)/bin/pip $(PIP) -e '.[all,dev]'
	@# The tests' client of TensorFlow Serving. It asks for the package `tensorflow`, which
	@# tensorflow-cpu is under another name: with its dependencies it would bring a second copy.
	@$(TEST)/bin/pip $(PIP) --no-deps tensorflow-serving-api
	@touch $@

venv = $(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("crossfade needs \
Python 3.11 or newer: make PYTHON=python3.12 ...")' && { $(PYTHON) -m venv $(1) || { \
echo "python3 has no venv module: apt-get install python3-venv"; exit 1; }; }
