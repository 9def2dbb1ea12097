# The commands make their own environments, in .venv and .nox; noxfile.py says what each session runs.
PYTHON ?= python3
NOX := .venv/bin/nox

quick: $(NOX)  ## style, types, and the essentials on numpy and torch
	$(NOX) -s core --install-only
	$(NOX) -s quick

test: $(NOX)  ## all that is essential, one environment per framework, two at a time
	$(NOX) --parallel 2

test-all: $(NOX)  ## the rarer and slower tests too
	$(NOX) --parallel 2 -- -m ""

trl-releases: $(NOX)  ## what may differ between TRL's releases, in each of them, and a table
	$(NOX) -s trl_releases -- $(ARGS)

demo: $(NOX)  ## a small language model trained with DGPO in TRL; make demo ARGS="--estimator grpo"
	$(NOX) -s demo -- $(ARGS)

study: $(NOX)  ## estimators compared on small models; make study ARGS="--plan full --device cuda"
	$(NOX) -s study -- $(ARGS)

pivots: $(NOX)  ## when token weights find the tokens that decide the reward; 50 minutes on two cores
	$(NOX) -s pivots -- $(ARGS)

gpu:  ## on a GPU's machine, in its own Python: everything that it has to show, in under ten minutes
	$(PYTHON) benchmarks/on_gpu.py --output benchmarks/results/gpu $(ARGS)

gpu-rehearsal: $(NOX)  ## the same in small on a CPU, by Triton's interpreter
	$(NOX) -s rehearse_gpu -- $(ARGS)

$(NOX):
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet nox==2026.10.20

.PHONY: quick test test-all trl-releases demo study pivots gpu gpu-rehearsal
