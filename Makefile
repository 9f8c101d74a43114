# Two commands are enough: `make demo` and `make test`.  Both set up .venv by themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PROTOS := $(wildcard proto/bellhop/v1/*.proto)
export OMP_NUM_THREADS ?= 1

.PHONY: help demo test check lint types layers proto proto-check transcripts bench campaign clean designs-check

help:
	@echo "make demo         two daemons and an emulator make a device-independent key and use it"
	@echo "make test         all tests"
	@echo "make check        lint, types, layer laws, generated code"
	@echo "make campaign     thousands of seeds (hours)"
	@echo "make bench        the benchmarks of bench/"
	@echo "make designs-check  prove the entropy of all shipped designs anew"
	@echo "make transcripts  write the golden transcripts anew"
	@echo "make proto        generate the protobuf modules anew"

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: $(STAMP)
	$(BIN)/bellhop demo

test: $(STAMP)
	$(BIN)/pytest -m "not campaign"

check: lint types layers proto-check

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

layers: $(STAMP)
	$(BIN)/lint-imports

proto: $(STAMP)
	rm -rf proto/gen/bellhop
	$(call generate,proto/gen)

proto-check: $(STAMP)
	rm -rf build/proto && mkdir -p build/proto
	$(call generate,build/proto)
	diff --recursive --exclude=__pycache__ build/proto proto/gen || { echo "proto/gen is not what proto/ says: make proto"; exit 1; }

define generate
	$(BIN)/python -m grpc_tools.protoc -Iproto --python_out=$(1) --grpc_python_out=$(1) \
	    --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy --mypy_out=quiet:$(1) \
	    --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc --mypy_grpc_out=quiet,only_async:$(1) $(PROTOS)
	@printf '"""Generated protobuf messages and services, version 1."""\n' > $(1)/bellhop/v1/__init__.py
	@touch $(1)/bellhop/v1/py.typed
endef

transcripts: $(STAMP)
	$(BIN)/pytest tests/transcripts --rewrite-transcripts

bench: $(STAMP)
	for b in bench/*.py; do $(BIN)/python $$b || exit 1; done

designs-check: $(STAMP)
	$(BIN)/bellhop diqkd designs check

campaign: $(STAMP)
	$(BIN)/pytest -m campaign

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache demo
