# Each target sets up its own virtual environment; nothing outside this folder is changed.
PYTHON ?= python3
VENV ?= .venv
OUT ?= demo-out
CHECKPOINT := models/nano.safetensors
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo test lint slow clean

help:
	@echo "make demo   two photographs through export, validate, encode, decode: $(OUT)/sheet.png"
	@echo "make test   linters, types and the test suite"
	@echo "make slow   the longer checks (fresh installs on every Python found)"
	@echo "make clean  remove the virtual environment and what was built"

$(READY): pyproject.toml runtime/cwic/_rans.c scripts/setup
	@scripts/setup "$(PYTHON)" "$(VENV)"
	@touch $@

demo: $(READY)
	$(BIN)/cwic export $(CHECKPOINT) -o $(OUT)/bundle
	$(BIN)/cwic validate $(OUT)/bundle --reference $(CHECKPOINT) --images 'assets/kodim*.png' --scales 1
	$(BIN)/python -m benchmarks.demo assets/kodim03.png assets/kodim23.png -o $(OUT) \
	  --model $(OUT)/bundle

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "not slow" -n logical --dist loadfile --no-loadscope-reorder

slow: $(READY)
	$(BIN)/python -m pytest -q -m slow

clean:
	rm -rf $(VENV) $(OUT) build *.egg-info
