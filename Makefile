# The commands make their own environments, in .venv and .nox.
PYTHON ?= python3
NOX := .venv/bin/nox

test: $(NOX)  ## all tests, one environment per framework
	$(NOX)

demo: $(NOX)  ## a small language model trained with DGPO in TRL; make demo ARGS="--estimator grpo"
	$(NOX) -s demo -- $(ARGS)

study: $(NOX)  ## estimators compared on small models; make study ARGS="--plan full --device cuda"
	$(NOX) -s study -- $(ARGS)

$(NOX):
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet nox==2026.10.20

.PHONY: test demo study
