# make demo   the main job, from a posed figure to its illustration
# make test   lint, types and tests, on real Blender
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
REQUIREMENTS := requirements/backend.txt requirements/development.txt
ALONE := requirements/upscalers.txt
# Every core runs tests of its own; torch with more threads than that is slower on models this small.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical

.PHONY: setup setup-training demo test lint test-pure test-backend test-blender test-training test-matrix test-window fuzz bench zip clean

setup: $(READY)

$(READY): $(REQUIREMENTS) $(ALONE) tools/system_libraries.py
	$(PYTHON) tools/system_libraries.py
	@echo "Making the environment $(VENV) (about 2.5 GB and 3 minutes, once)"
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --progress-bar on $(addprefix -r ,$(REQUIREMENTS))
	$(BIN)/python -m pip install --quiet --no-deps -r $(ALONE)
	@touch $@

setup-training: $(READY) requirements/training.txt
	$(BIN)/python -m pip install --quiet --no-deps -r requirements/training.txt

demo: $(READY)
	$(BIN)/python tools/demo.py

test: lint test-pure test-backend test-blender

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	mkdir -p build/typed && ln -sfn $(CURDIR) build/typed/viewport_diffusion
	MYPYPATH=build/typed $(BIN)/mypy -p viewport_diffusion.addon

test-pure: $(READY)
	$(PYTEST) tests/pure

test-backend: $(READY)
	$(PYTEST) tests/backend

test-blender: $(READY)
	$(PYTEST) tests/blender

# Each test of what comes in, with 10,000 inputs.
fuzz: $(READY)
	$(PYTEST) tests/pure/test_fuzz.py --hypothesis-profile=long --timeout=3000

# The training recipe's own tests; it needs packages of its own.
test-training: setup-training
	$(PYTEST) tests/training

# The same tests on the oldest and the newest Blender, each in its own environment; the backend stays in ours.
test-matrix: test-blender
	tools/matrix.sh 4.2.23 python3.11
	tools/matrix.sh 5.2.3 python3.13

test-window: $(READY) zip
	$(BIN)/python tests/window/run.py

bench: $(READY)
	$(BIN)/python tools/bench.py

zip: $(READY)
	$(BIN)/python tools/package.py

clean:
	rm -rf build demo
