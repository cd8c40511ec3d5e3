# Two commands set everything up on a machine that has Python (>= 3.11) and make:  make demo  and  make test
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
# Without a GPU, the small build of PyTorch:  make demo CPU=1
CPU ?=
# How the demo is launched; on a GPU: make demo LAUNCH=configs/accelerate/gpu.yaml
LAUNCH ?= configs/accelerate/cpu.yaml
DEMO := runs/demo
LAUNCHER := $(BIN)/accelerate launch --quiet --num_cpu_threads_per_process $$(getconf _NPROCESSORS_ONLN) --config_file $(LAUNCH)

.PHONY: demo test stress fuzz check install clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vidtl needs Python 3.11 or newer; try: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	@echo "Installing vidtl and PyTorch into $(VENV): $(if $(CPU),1 GB,several GB; without a GPU make CPU=1 $(MAKECMDGOALS) takes 1 GB)"
	$(PYTHON) -m venv $(VENV)
	$(if $(CPU),$(BIN)/python -m pip install --quiet torch torchvision --index-url https://download.pytorch.org/whl/cpu)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $(INSTALLED)

# Real videos in, a trained ViViT + TokenLearner and exact metrics out, in a few minutes on a laptop.
demo: $(INSTALLED)
	$(BIN)/python tools/make_toy.py data/toy
	$(LAUNCHER) tools/train.py --config configs/toy.yaml --output_dir $(DEMO)
	$(BIN)/python tools/visualize.py --checkpoint $(DEMO)
	$(LAUNCHER) tools/eval.py --checkpoint $(DEMO)
	@echo "checkpoints $(DEMO)/checkpoints"
	@echo "curves      $(DEMO)/curves.png"
	@echo "report      $$(ls -d $(DEMO)/evaluation/step-*/val-center/report.html | tail -n 1)"
	@echo "pictures    $(DEMO)/pictures  (where the learned tokens look)"

# The whole test suite; tests of real data skip, with the reason, where the data is absent.
test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist loadfile

# Kills, signals, damage, elastic restarts and long runs by the hundred: an hour on two quiet cores; SCALE=0.1 for a tenth.
# Results go to docs/results/reliability.json and .md.
SCALE ?= 1
SEED ?= 0
stress: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.stress.reliability --scale $(SCALE) --seed $(SEED)

# Mutated model directories, data sets, manifests and videos: COUNT of each, half an hour on a quiet core.
COUNT ?= 2000
fuzz: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.stress.fuzz --count $(COUNT) --seed $(SEED)

# Format, lint and types.
check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build *.egg-info
