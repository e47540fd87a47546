# The two commands: `make results` and `make test`. Both make .venv first; PYTHON chooses the interpreter for it.
PYTHON ?= python3
CORES ?= all
CONFIG ?= config.yaml
VENV := .venv
BIN := $(VENV)/bin
# A study stands alone: without --replace-workflow-config Snakemake would merge it into config.yaml.
STUDY := --configfile $(CONFIG) --replace-workflow-config
SOURCES := scripts workflow_tests

.DEFAULT_GOAL := help
.PHONY: help results test slow peers check format schema provenance readme clean

help: ## Show this list.
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

results: $(VENV)/installed ## Run the study of config.yaml (or CONFIG=studies/x.yaml) into results/.
	@mkdir -p .snakemake
	@flock --timeout 10 --conflict-exit-code 75 .snakemake/driver sh -c \
	  '$(BIN)/snakemake --unlock --quiet all $(STUDY) && exec $(BIN)/snakemake --cores $(CORES) $(STUDY)'; \
	code=$$?; if [ $$code -eq 75 ]; then echo "Another run works in this folder; wait for it or stop it."; fi; exit $$code

test: $(VENV)/installed ## Run the tests, at most 12 minutes on 2 cores.
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow and not peer" workflow_tests

slow: $(VENV)/installed ## Run the slow tests.
	$(BIN)/python -m pytest -m slow workflow_tests

peers: $(VENV)/peers ## Compare with the libraries that users deploy with.
	GPTQMODEL_CPU_WORKERS=2 $(BIN)/python -m pytest -m peer workflow_tests

check: $(VENV)/installed ## Format, lint, types; silent if all is well.
	@$(BIN)/ruff format --quiet --check $(SOURCES)
	@$(BIN)/ruff check --quiet $(SOURCES)
	@$(BIN)/mypy --no-error-summary scripts/hemorrhage
	@$(BIN)/snakefmt --check Snakefile rules 2> .check.log || { cat .check.log; exit 1; }
	@$(BIN)/snakemake --lint --workflow-profile none > .check.log 2>&1 || { cat .check.log; exit 1; }
	@rm -f .check.log

format: $(VENV)/installed ## Bring the sources into the project's format.
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/snakefmt Snakefile rules

schema: $(VENV)/installed ## Write the editor's schema from the methods' settings.
	PYTHONPATH=scripts $(BIN)/python -m hemorrhage.planning.editor_schema

provenance: $(VENV)/installed ## Write Snakemake's own report of the last run: jobs, times, code.
	$(BIN)/snakemake $(STUDY) --report results/provenance.html

readme: $(VENV)/installed ## Put the figures of the last run of config.yaml into README.md.
	PYTHONPATH=scripts $(BIN)/python -m hemorrhage.reporting.readme

clean: ## Remove the environment and Snakemake's own folder; results/ stay.
	rm -rf $(VENV) .snakemake

$(VENV)/installed: envs/requirements.txt envs/constraints.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r envs/requirements.txt -c envs/constraints.txt
	@touch $@

$(VENV)/peers: $(VENV)/installed envs/requirements-peers.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "setuptools>=77.0.1,<83" wheel ninja maturin
	GPTQMODEL_CPU_WORKERS=2 MAX_JOBS=1 $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --no-deps --no-build-isolation -r envs/requirements-peers.txt
	@touch $@
