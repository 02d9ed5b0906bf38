# `make demo`, `make test`: both work from a fresh clone. The demo needs the base
# alone, without TensorFlow; the tests need all extras but `cuda` and `peers`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-all lint notebooks benchmark clean

$(VENV)/.base: setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e .
	touch $@

$(VENV)/.test: $(VENV)/.base
	$(BIN)/python -m pip install --quiet -e '.[test]'
	touch $@

demo: $(VENV)/.base  ## The audit of the embedded digits, some three minutes on 2 cores.
	$(BIN)/python -m experiments.audit --methods=random,kip \
	  --inits=real --num_networks=2 --network_epochs=100 --full_epochs=10 \
	  --options=kip.steps=300 --learned=logistic \
	  --lira_shadows=8 --lira_train=600 --lira_networks= \
	  --num_attacked=30 --attacks=fgsm,pgd_linf --attack_steps=10 \
	  --corruptions=gaussian_noise,gaussian_blur,contrast,pixelate \
	  --leak_train=30 --leak_methods=all,kip --leak_regimes=linearized \
	  --workdir=out/demo

test: $(VENV)/.test  ## The tests that CI runs.
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -n 2 -m 'not slow'

test-all: $(VENV)/.test  ## Optimised, with slow ones; then with shape checks.
	JAX_DISABLE_MOST_OPTIMIZATIONS=0 $(BIN)/python -m pytest -n 2
	$(BIN)/python -m pytest -n 2 -m 'not slow and not errors' \
	  --jaxtyping-packages=dsr,beartype.beartype

lint: $(VENV)/.test
	$(BIN)/ruff check .

notebooks: $(VENV)/.test  ## Executes all of them anew, with the time of each.
	$(BIN)/python -m notebooks.execute

benchmark: $(VENV)/.test  ## Side-by-side ratios; wants a quiet machine.
	$(BIN)/python -m experiments.benchmark --suite=kernels --workdir=out/benchmark

clean:
	rm -rf $(VENV) out build dist *.egg-info
