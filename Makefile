# Everything a developer does, and CI does the same. `make help` lists the targets.
PYTHON ?= python3
PINS := -c requirements/constraints.txt
PIP := install -qq --disable-pip-version-check $(PINS)
DEMO := .venv
TEST := .venv-test
CLIENTS := .venv-clients
GPU := .venv-gpu

# Tests of models and of HTTP: which host gRPC has makes no difference to them.
NOT_OF_GRPC := convert edge_tpu fixtures hostile_http hostile_images hostile_models hostile_vertex \
    import isolat openapi processing python_models remote slim table tabular tensorrt vertex

# A process of tests for each core, but no more than four: some load TensorFlow. A file's tests share
# their servers, and stay together.
SPREAD := -n auto --maxprocesses 4 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help demo demo-once demo-fade test test-gpu test-large check format proto bench-serving bench-protocols \
    bench-transport bench-runtimes bench-ensembles bench-statistics bench-gpu bench-slim bench-isolation bench-tuning \
    bench-warmstart bench-baseline bench-gate bench-arrcoc bench-arrcoc-ablation bench-deps \
    demo-arrcoc soak native-deps native-check triton wheel clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

demo: $(DEMO)/.ready  ## serve the sample models, send them real images, keep serving until Ctrl-C
	@$(DEMO)/bin/python examples/demo.py

demo-once: $(DEMO)/.ready  ## the same, and end by itself
	@$(DEMO)/bin/python examples/demo.py --once

demo-fade: $(DEMO)/.fade  ## fade from one sample model to the other while a client runs, and kill the server
	@$(DEMO)/bin/python examples/fade/demo.py

test: $(TEST)/.ready $(TEST)/.native $(CLIENTS)/.ready  ## run all tests; those of gRPC on either host
	@$(TEST)/bin/python -m pytest $(SPREAD)
	@! $(TEST)/bin/python -c 'import crossfade_native' 2>/dev/null || \
	    $(TEST)/bin/python -m pytest $(SPREAD) tests/e2e --transport grpcio -m 'not slow and not large' \
	    $(patsubst %,--ignore-glob='*/test_%*',$(NOT_OF_GRPC))

test-large: $(TEST)/.ready $(TEST)/.native  ## run the tests that take minutes
	@$(TEST)/bin/python -m pytest -m large

test-gpu: $(GPU)/.ready  ## run the tests that need an NVIDIA GPU
	@$(GPU)/bin/python -m pytest -m gpu tests/runtimes tests/e2e/test_gpu.py

check: $(TEST)/.ready $(TEST)/.native  ## formatting, lint, types, layers
	@$(TEST)/bin/ruff format --check .
	@$(TEST)/bin/ruff check .
	@$(TEST)/bin/mypy
	@$(TEST)/bin/lint-imports

format: $(TEST)/.ready  ## format the code
	@$(TEST)/bin/ruff format .
	@$(TEST)/bin/ruff check --fix .

proto: $(TEST)/.ready  ## make descriptors and stubs from serving/wire/*.proto
	@$(TEST)/bin/python serving/wire/generate.py

bench-serving: $(TEST)/.ready $(TEST)/.native  ## measure against the bare runtime, Triton, KServe and MLServer
	@$(TEST)/bin/python -m crossfade.benchmarks.serving $(BENCH)

bench-transport: $(TEST)/.ready $(TEST)/.native  ## measure the native transport beside grpcio and Triton
	@$(TEST)/bin/python -m crossfade.benchmarks.serving --models addsub,mlp,cnn \
	    --servers bare,triton,crossfade,crossfade-grpcio $(BENCH)

soak: $(TEST)/.ready $(TEST)/.native  ## an hour of bad clients: does anything leak?
	@$(TEST)/bin/python -m crossfade.benchmarks.soak $(BENCH)

bench-runtimes: $(TEST)/.ready $(TEST)/.native  ## measure each runtime over gRPC beside its bare library, int8 beside float
	@$(TEST)/bin/python -m crossfade.benchmarks.runtimes $(BENCH)

bench-protocols: $(TEST)/.ready $(TEST)/.native  ## measure what each protocol costs for the same tensor
	@$(TEST)/bin/python -m crossfade.benchmarks.protocols $(BENCH)

native-deps:  ## what the native transport is built from: a C++ compiler and the HTTP/2 library
	apt-get update -qq
	apt-get install -y g++ libnghttp2-dev

native-check: $(TEST)/.native  ## bend bytes and race threads through it, under sanitizers
	@$(TEST)/bin/python -m pytest tests/native --seconds 60

bench-gpu: $(GPU)/.ready  ## measure a model on an NVIDIA GPU, bare and behind the server
	@$(GPU)/bin/python -m crossfade.benchmarks.gpu $(BENCH)

bench-slim: wheel  ## how large the install for edge devices is, and how soon it serves
	@$(TEST)/bin/python -m crossfade.benchmarks.slim dist/crossfade-*.whl

bench-isolation: $(TEST)/.ready  ## measure what a worker process adds to a call
	@$(TEST)/bin/python -m crossfade.benchmarks.isolation $(BENCH)

bench-ensembles: $(TEST)/.ready $(TEST)/.native  ## measure ensembles: beside bare sessions, fused, with a shadow, beside Triton's
	@$(TEST)/bin/python -m crossfade.benchmarks.ensembles $(BENCH)

bench-arrcoc: $(TEST)/.ready  ## train and compare the query-aware model: make bench-arrcoc DATA=BCCD/
	@OMP_NUM_THREADS=1 $(TEST)/bin/python -m crossfade.benchmarks.arr_coc --data $(DATA) $(BENCH)

bench-arrcoc-ablation: $(TEST)/.ready  ## which of its parts help, each at full length: make bench-arrcoc-ablation DATA=BCCD/
	@OMP_NUM_THREADS=1 $(TEST)/bin/python -m crossfade.benchmarks.arr_coc_ablation --data $(DATA) $(BENCH)

demo-arrcoc: $(TEST)/.ready  ## export, warm start, ARR-COC, evaluation, server, answer: make demo-arrcoc DATA=BCCD/
	@$(TEST)/bin/python examples/arr_coc/demo.py --data $(DATA) $(if $(EXPORT),--export $(EXPORT))

bench-statistics: $(TEST)/.ready  ## prove learned weights, gates and decisions by simulation
	@OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 \
	    $(TEST)/bin/python -m crossfade.benchmarks.statistics $(BENCH)

bench-warmstart: $(TEST)/.ready  ## count the updates that a warm start saves
	@OMP_NUM_THREADS=1 $(TEST)/bin/python -m crossfade.benchmarks.warm_start $(BENCH)

bench-baseline: $(TEST)/.ready  ## what the baseline reaches on housing, Titanic and digits
	@OMP_NUM_THREADS=1 $(TEST)/bin/python -m crossfade.benchmarks.baseline $(BENCH)

bench-gate: $(TEST)/.ready  ## how often the data-quality gate finds planted faults, and alarms for nothing
	@OMP_NUM_THREADS=1 $(TEST)/bin/python -m crossfade.benchmarks.gate_statistics $(BENCH)

bench-tuning: $(TEST)/.ready  ## measure what earlier searches are worth to a new one
	@OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(TEST)/bin/python -m crossfade.benchmarks.tuning $(BENCH)

bench-deps:  ## what the benchmarks need of the system: h2load, the load generator
	apt-get install -y nghttp2-client

triton: $(TEST)/.ready  ## install a real Triton into .bench/, for the tests and benchmarks that compare with it
	@$(TEST)/bin/python -m crossfade.benchmarks.peers.triton

wheel: $(TEST)/.ready  ## build the wheel and the sdist into dist/
	@rm -rf build dist
	@$(TEST)/bin/python -m build --no-isolation

clean:  ## remove what the targets made
	rm -rf $(DEMO) $(TEST) $(CLIENTS) $(GPU) .bench build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache \
	    .import_linter_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

# The demo needs no TensorFlow and no torch: two small runtimes and a client.
$(DEMO)/.ready: pyproject.toml requirements/constraints.txt
	@echo "making $(DEMO) (about half a minute) ..."
	@$(call venv,$(DEMO))
	@$(DEMO)/bin/pip $(PIP) -e '.[onnx,tflite]' 'tritonclient[grpc]'
	@touch $@

$(DEMO)/.fade: $(DEMO)/.ready
	@$(DEMO)/bin/pip $(PIP) -e '.[fade]'
	@touch $@

$(TEST)/.ready: pyproject.toml requirements/constraints.txt
	@echo "making $(TEST) with TensorFlow and all that the tests need (some minutes) ..."
	@$(call venv,$(TEST))
	@$(TEST)/bin/pip $(PIP) -e '.[all,torch,dev]'
	@# The tests' client of TensorFlow Serving. It asks for the package `tensorflow`, which
	@# tensorflow-cpu is under another name: with its dependencies it would bring a second copy.
	@$(TEST)/bin/pip $(PIP) --no-deps tensorflow-serving-api
	@touch $@

# Clients and checkers that cannot be with TensorFlow, or would change how pytest runs.
$(CLIENTS)/.ready: requirements/clients.txt
	@echo "making $(CLIENTS) with the clients that the tests call (about a minute) ..."
	@$(call venv,$(CLIENTS))
	@$(CLIENTS)/bin/pip install -qq --disable-pip-version-check -r requirements/clients.txt
	@touch $@

# The native transport is optional: without the HTTP/2 library's headers it is left out.
$(TEST)/.native: $(TEST)/.ready native/setup.py $(wildcard native/src/*/* native/crossfade_native/*.py*)
	@if echo '#include <nghttp2/nghttp2.h>' | $(CXX) -x c++ -E - >/dev/null 2>&1; then \
	    $(TEST)/bin/pip $(PIP) --no-build-isolation --no-deps --force-reinstall ./native; \
	    else echo "the native transport is left out: run make native-deps to have it"; fi
	@touch $@

# CUDA and cuDNN come as NVIDIA's Python packages; the machine brings the driver.
$(GPU)/.ready: pyproject.toml requirements/constraints.txt
	@echo "making $(GPU) with CUDA (2 GB; some minutes) ..."
	@$(call venv,$(GPU))
	@$(GPU)/bin/pip $(PIP) -e '.[gpu,dev]' 'onnxruntime-gpu[cuda,cudnn]'
	@touch $@

venv = $(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("crossfade needs \
Python 3.11 or newer: make PYTHON=python3.12 ...")' && { $(PYTHON) -m venv $(1) || { \
echo "python3 has no venv module: apt-get install python3-venv"; exit 1; }; }
