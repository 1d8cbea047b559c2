# The only front door. `make` lists what there is.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

SIDECARS := $(patsubst sidecars/%/Dockerfile,%,$(wildcard sidecars/*/Dockerfile))
PROJECTS := runtime $(patsubst %/pyproject.toml,%,$(wildcard sidecars/*/pyproject.toml))
PYPROJECTS := $(PROJECTS:%=%/pyproject.toml)
BIN := .venv/bin
STAMP := .venv/setup.stamp
# Nothing is built from what the lock does not name; older versions of pip build by setup.py if not told.
PIP := PIP_USE_PEP517=1 $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation
SHELL_SCRIPTS := .ci/run tests/images/airflow-base tests/images/git-sync-image $(filter-out %.py,$(wildcard scripts/*))
# gssapi has no wheels: where it cannot be compiled, .venv is made without it.
COMPILES := command -v gcc >/dev/null && krb5-config --libs gssapi >/dev/null 2>&1

# What the environment or the command line may set:
#   PYTHON         the interpreter behind .venv (default: the first Python >= 3.11 on PATH)
#   AIRFLOW        3 or 2.11, for demo-airflow (default: both, one after the other)
#   AIRFLOW_CHART  folder with the official chart's values.yaml and values.schema.json
#   GIT_SYNC_BIN   the real git-sync, for tests, demos, bench and soak (default: on PATH, else a stand-in)
#   BUILDER        docker, buildah or podman (default: the first that works)
#   BASE_IMAGE     another base than the Dockerfile's
#   AIRFLOW_IMAGE  the same for sync-perm: your own Airflow image
#   GIT_SYNC_IMAGE what git-sync-wrapper takes /git-sync from (default: the official image)
#   TAG, REGISTRY  the image is [REGISTRY/]NAME:TAG (default: the 12-character commit)
#   PLATFORMS      for push, such as linux/amd64,linux/arm64 (default: this machine's)
#   SOURCE         web address of this repository, for the images' labels
export PYTHON AIRFLOW_CHART BUILDER BASE_IMAGE AIRFLOW_IMAGE GIT_SYNC_IMAGE TAG REGISTRY PLATFORMS SOURCE

PYTEST := $(BIN)/python -m pytest
# More tests at once than cores, as most of them wait most of the time; one file stays together.
SIDE_BY_SIDE := --numprocesses 3 --dist loadfile

.PHONY: help
help: ## list the targets
	@awk '/^# [A-Z][a-z ]+$$/ { print "\n" substr($$0, 3) } \
	  /^[a-z$$][^#]*:.*## / { \
	    name = $$0; sub(/^[$$][(]SIDECARS:%=/, "", name); sub(/[%:].*/, "", name); sub(/[/]$$/, "/NAME", name); \
	    text = $$0; sub(/.*## /, "", text); printf "  make %-16s %s\n", name, text }' $(MAKEFILE_LIST)
	@echo; echo "NAME is one of: $(SIDECARS)"

# First steps

.PHONY: demo
demo: setup ## show the sidecars at work against an S3 server, a KDC and a git server
	@$(BIN)/python -m demo

.PHONY: demo-airflow
demo-airflow: setup ## show all four beside a real Airflow 3 and 2.11 (AIRFLOW=3: one; installs them)
	@$(BIN)/python -m demo.airflow $(AIRFLOW)

.PHONY: test
test: setup ## run the tests that need no images, with moderate counts
	$(PYTEST) --ignore tests/images $(SIDE_BY_SIDE)

# Development

.PHONY: setup
setup: $(STAMP) ## make .venv ready; quick when nothing changed
	@:

$(STAMP): requirements/build.txt requirements/dev.txt requirements/kerberos.txt $(PYPROJECTS) scripts/system-packages scripts/find-python
	@scripts/system-packages setup
	@python=$$(scripts/find-python); $(BIN)/python -c '' 2>/dev/null || "$$python" -m venv --clear .venv
	@echo "Installing what requirements/dev.txt pins into .venv"
	@$(PIP) --require-hashes -r requirements/build.txt
	@$(PIP) --require-hashes -r requirements/dev.txt
	@if $(COMPILES); then $(PIP) --require-hashes -r requirements/kerberos.txt; \
	  else echo "Left out, as there is no gcc or libkrb5-dev: gssapi, and with it the tests of kerberos"; fi
	@$(PIP) --no-deps $(PROJECTS:%=-e ./%)
	@touch $@

.PHONY: sync
sync: setup ## make .venv exactly what the lock says: removes what is not in it
	$(BIN)/uv pip sync --quiet --require-hashes --no-build-isolation requirements/dev.txt \
	  $$(if $(COMPILES); then echo requirements/kerberos.txt; fi)
	@$(PIP) --no-deps $(PROJECTS:%=-e ./%)

.PHONY: lock
lock: setup ## compile requirements/ from the pyproject files (UPGRADE=1: newest versions)
	scripts/lock $(if $(UPGRADE),--upgrade)

.PHONY: lock-check
lock-check: setup ## fail when requirements/ does not follow from the pyproject files
	scripts/lock --check

.PHONY: format
format: setup ## reformat the Python code and mend what ruff can mend
	$(BIN)/ruff check --fix --exit-zero --quiet
	$(BIN)/ruff format

.PHONY: lint
lint: setup types ## check everything that needs no test: code, imports, YAML, shell, Dockerfiles
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/yamllint --strict .
	$(BIN)/shellcheck $(SHELL_SCRIPTS)
	$(BIN)/hadolint $(SIDECARS:%=sidecars/%/Dockerfile)
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows charts-snippets/ci/github-actions.yaml
	$(BIN)/python scripts/lint_ci.py

.PHONY: types
types: setup ## check the types
	$(BIN)/mypy

# Tests

.PHONY: $(SIDECARS:%=test/%)
$(SIDECARS:%=test/%): test/%: setup ## run the tests of one sidecar
	$(PYTEST) $(wildcard tests/$(subst -,_,$*) tests/scenarios/$(subst -,_,$*))

.PHONY: test-full
test-full: setup ## run the same tests with the full counts
	$(PYTEST) --ignore tests/images --full $(SIDE_BY_SIDE)

.PHONY: scenarios
scenarios: setup ## run the tests of whole processes against real servers
	$(PYTEST) tests/scenarios

.PHONY: soak
soak: setup ## run all sidecars among random faults and kills (MINUTES=25 SEED=7 ARGS="--help")
	$(BIN)/python -m soak $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED)) $(ARGS)

.PHONY: bench
bench: $(SIDECARS:%=bench/%) ## measure the sidecars beside their peers, as ratios

.PHONY: $(SIDECARS:%=bench/%)
$(SIDECARS:%=bench/%): bench/%: setup ## measure one sidecar beside its peers (ARGS="--help")
	$(BIN)/python -m bench $* $(ARGS)

.PHONY: chart-test
chart-test: setup ## render charts-snippets against the official chart in AIRFLOW_CHART
	$(PYTEST) tests/chart

# Images

.PHONY: setup-images
setup-images: ## install what builds and runs images without a daemon (Debian, root)
	@scripts/system-packages images

.PHONY: images
images: $(SIDECARS:%=image/%) ## build all images

.PHONY: image
image: images

.PHONY: $(SIDECARS:%=image/%)
$(SIDECARS:%=image/%): image/%: ## build one image
	@scripts/build-image $*

.PHONY: push
push: $(SIDECARS:%=push/%) ## build all images and push them to REGISTRY; logs in to ECR

.PHONY: $(SIDECARS:%=push/%)
$(SIDECARS:%=push/%): push/%: ## build one image and push it; a tag is never overwritten
	@scripts/push-image $*

.PHONY: sbom
sbom: $(SIDECARS:%=sbom/%) ## write dist/NAME.cdx.json for all images: what is in them

.PHONY: $(SIDECARS:%=sbom/%)
$(SIDECARS:%=sbom/%): sbom/%: ## write what is in one image, in CycloneDX
	@scripts/sbom $*

.PHONY: image-test
image-test: $(SIDECARS:%=image-test/%) push-test ## build and test all images

.PHONY: $(SIDECARS:%=image-test/%)
$(SIDECARS:%=image-test/%): image-test/%: setup ## build and test one image
	@image=$$(scripts/build-image $*); IMAGE=$$image $(PYTEST) tests/images/test_$(subst -,_,$*).py tests/images/test_every_image.py

.PHONY: push-test
push-test: setup ## test push against a registry on loopback
	$(PYTEST) tests/images/test_push.py

# The rest

.PHONY: docs
docs: setup ## rewrite the generated parts of the documentation
	$(BIN)/python -m docs

.PHONY: clean
clean: ## remove .venv, .airflow, dist and every cache
	rm -rf .venv .airflow dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
