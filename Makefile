# The only entry point. `make` lists the targets.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

SIDECARS := $(patsubst sidecars/%/Dockerfile,%,$(wildcard sidecars/*/Dockerfile))
BIN := .venv/bin
WORKFLOWS := $(wildcard .github/workflows/*.yaml) charts-snippets/ci/github-actions.yaml
SHELL_SCRIPTS := .ci/run .ci/shared tests/images/airflow-base tests/images/git-sync-image $(filter-out %.py %/__pycache__,$(wildcard scripts/*))
# For the first line of a recipe: install the Debian packages of the targets, then update .venv, so that gssapi compiles.
prepare = @scripts/system-packages $(1); scripts/environment

# Variables for the environment or the command line:
#   PYTHON         the interpreter behind .venv (default: 3.13, the images' own, else the first Python >= 3.11)
#   AIRFLOW        3 or 2.11, for demo-airflow (default: both, one after the other); for values 3 or 2
#   AIRFLOW_CHART  folder with the official chart; tests render it when helm is on PATH
#   OLD_AIRFLOW_CHART  the same for version 1.13.1, to render the published example
#   MINIO_BIN, VERSITYGW_BIN  S3 servers for test-full (default: scripts/s3-servers builds them if Go is installed)
#   GIT_SYNC_BIN   the real git-sync, for tests, demos, bench and soak (default: on PATH; without it, they skip git-sync-wrapper)
#   GIT_SYNC_SUITE  folder of git-sync's own test_e2e.sh, for make test-full, as root (without it, they are skipped)
#   KUBECONFIG     the cluster for test-cluster, with kubectl on PATH; for more, see tests/cluster/README.md
#   BUILDER        docker, buildah or podman (default: the first that works)
#   BASE_IMAGE     base image (default: the Dockerfile's)
#   AIRFLOW_IMAGE  base image of sync-perm: your own Airflow image
#   GIT_SYNC_IMAGE image from which git-sync-wrapper copies /git-sync (default: the official image)
#   TAG, REGISTRY  the image is [REGISTRY/]NAME:TAG (default: the 12-character commit)
#                  docs-site: the version name of the documentation (default: dev)
#   SIGN_KEY       for push: the key that cosign signs with, such as awskms:///alias/images
#   PLATFORMS      for push, such as linux/amd64,linux/arm64 (default: this machine's)
#   SOURCE         URL of this repository, for the images' labels and the site; for values: the source of the DAGs
export PYTHON AIRFLOW_CHART OLD_AIRFLOW_CHART BUILDER BASE_IMAGE AIRFLOW_IMAGE GIT_SYNC_IMAGE TAG REGISTRY SIGN_KEY PLATFORMS SOURCE

# Writes bytecode even if the environment disables it: otherwise each worker compiles all tests, which takes 15 s.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest
# More workers than cores, because tests mostly wait; each worker runs whole files.
SIDE_BY_SIDE := --numprocesses 5 --dist loadfile --no-loadscope-reorder

.PHONY: help
help: ## list the targets
	@awk '/^# [A-Z][a-z ]+$$/ { print "\n" substr($$0, 3) } \
	  /^[a-z$$][^#]*:.*## / { \
	    name = $$0; sub(/^[$$][(]SIDECARS:%=/, "", name); sub(/[%:].*/, "", name); sub(/[/]$$/, "/NAME", name); \
	    text = $$0; sub(/.*## /, "", text); printf "  make %-16s %s\n", name, text }' $(MAKEFILE_LIST)
	@echo; echo "NAME is one of: $(SIDECARS)"

# First steps

.PHONY: demo
demo: setup ## run the sidecars against an S3 server, a KDC and a git server
	@$(BIN)/python -m demo

.PHONY: demo-airflow
demo-airflow: ## run all four with a real Airflow 3 and 2.11, which it installs (AIRFLOW=3: only one)
	$(call prepare,$@)
	@$(BIN)/python -m demo.airflow $(AIRFLOW)

.PHONY: quickstart
quickstart: ## install Airflow 3 with versioned DAGs on kind (CONTEXT=…: another cluster)
	@scripts/quickstart

.PHONY: test
test: setup-test ## run the tests that need no images or cluster, with moderate counts
	$(PYTEST) --ignore tests/images --ignore tests/cluster $(SIDE_BY_SIDE)

.PHONY: test-python
test-python: setup ## run the tests that start no processes with another Python (VERSION=3.11)
	python=$$(scripts/find-python $(VERSION)); PYTHON=$$python scripts/environment .venv-$(VERSION)
	$(PYTEST:$(BIN)/%=.venv-$(VERSION)/bin/%) $(SIDE_BY_SIDE) --units tests/runtime $(subst -,_,$(SIDECARS:%=tests/%))

# Development

.PHONY: setup
setup: ## create or update .venv from the lock, with wheels only; quick if nothing changed
	@scripts/environment

.PHONY: lock
lock: setup ## compile requirements/ from the pyproject files (UPGRADE=1: newest versions)
	scripts/lock $(if $(UPGRADE),--upgrade)

.PHONY: lock-check
lock-check: setup ## fail if requirements/ does not match the pyproject files
	scripts/lock --check

.PHONY: format
format: setup ## reformat the Python code and fix what ruff can fix
	$(BIN)/ruff check --fix --exit-zero --quiet
	$(BIN)/ruff format

.PHONY: lint
lint: setup types ## run all static checks: code, types, imports, YAML, shell, Dockerfiles
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-cache
	$(BIN)/yamllint --strict .
	$(BIN)/shellcheck $(SHELL_SCRIPTS)
	$(BIN)/hadolint $(SIDECARS:%=sidecars/%/Dockerfile) charts-snippets/ci/publisher.Dockerfile tests/*/*.Dockerfile
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows $(WORKFLOWS)
	$(BIN)/python scripts/lint_ci.py
	$(BIN)/python scripts/lint_figures.py
	$(BIN)/python scripts/lint_words.py
	$(BIN)/python -m scripts.snippets --check

.PHONY: types
types: setup ## check the types
	$(BIN)/mypy

# Tests

.PHONY: setup-test
setup-test: ## install the packages for tests (Debian, root): servers, a compiler, a browser
	$(call prepare,test)

.PHONY: $(SIDECARS:%=test/%)
$(SIDECARS:%=test/%): test/%: ## run the tests of one sidecar
	$(call prepare,$@)
	$(PYTEST) $(wildcard tests/$(subst -,_,$*) tests/scenarios/$(subst -,_,$*))

.PHONY: test-full
test-full: ## run the tests of make test and the slow ones, with full counts
	$(call prepare,test test-full demo-airflow)
	eval "$$(scripts/s3-servers)"; $(PYTEST) --ignore tests/images --ignore tests/cluster --full $(SIDE_BY_SIDE)

.PHONY: scenarios
scenarios: ## run the tests of whole processes against real servers
	$(call prepare,$@)
	$(PYTEST) tests/scenarios

.PHONY: mutants
mutants: setup-test ## plant faults in the code, and print the share that the tests notice (SEED=1 COUNT=100 ONLY=runtime)
	$(BIN)/python -m tests.mutants $(if $(SEED),--seed $(SEED)) $(if $(COUNT),--count $(COUNT)) $(if $(ONLY),--only $(ONLY)) $(ARGS)

.PHONY: soak
soak: ## run all sidecars under random faults and kills (MINUTES=25 SEED=7 ARGS="--help")
	$(call prepare,$@)
	$(BIN)/python -m soak $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED)) $(ARGS)

.PHONY: bench
bench: bench/bundle $(SIDECARS:%=bench/%) ## compare the sidecars with the tools they replace, as ratios

.PHONY: bench/bundle
bench/bundle: ## compare DAG versions with Airflow's own bundles (ARGS="--help")
	$(call prepare,$@)
	$(BIN)/python -m bench bundle $(ARGS)

.PHONY: $(SIDECARS:%=bench/%)
$(SIDECARS:%=bench/%): bench/%: ## compare one sidecar with the tools it replaces (ARGS="--help")
	$(call prepare,$@)
	$(BIN)/python -m bench $* $(ARGS)

.PHONY: chart-test
chart-test: ## check charts-snippets, and render it with the official chart in AIRFLOW_CHART
	$(call prepare,$@)
	$(PYTEST) tests/chart

.PHONY: test-cluster
test-cluster: ## run charts-snippets and a dozen outputs of make values on the cluster of KUBECONFIG (FULL=1: with Airflow)
	$(call prepare,$@ images)
	eval "$$(scripts/s3-servers versitygw)"; $(PYTEST) --timeout=900 $(if $(FULL),--full) tests/cluster

.PHONY: verify-aws
verify-aws: setup ## check S3, KMS, IAM, ECR and CodeCommit in a real account, then clean up (BUCKET=… KMS_KEY=… CLUSTER=…)
	@$(if $(BUCKET),BUCKET='$(BUCKET)') $(BIN)/python scripts/verify_aws.py

# Images

.PHONY: setup-images
setup-images: ## install the packages that build and run images without a daemon (Debian, root)
	@scripts/system-packages images

.PHONY: images
images: $(SIDECARS:%=image/%) ## build all images

.PHONY: $(SIDECARS:%=image/%)
$(SIDECARS:%=image/%): image/%: ## build one image
	@scripts/build-image $*

.PHONY: push
push: $(SIDECARS:%=push/%) ## build all images and push them to REGISTRY; logs in to ECR

.PHONY: $(SIDECARS:%=push/%)
$(SIDECARS:%=push/%): push/%: ## build one image and push it; a tag is never overwritten
	@scripts/push-image $*

.PHONY: base-images
base-images: ## pin the newest digests of the base images in the Dockerfiles
	@scripts/pin-base-images

.PHONY: sbom
sbom: $(SIDECARS:%=sbom/%) ## write the bills of materials of all images to dist/NAME.cdx.json

.PHONY: $(SIDECARS:%=sbom/%)
$(SIDECARS:%=sbom/%): sbom/%: ## write the bill of materials of one image, in CycloneDX format
	@scripts/sbom $*

.PHONY: image-test
image-test: $(SIDECARS:%=image-test/%) push-test ## build and test all images

.PHONY: $(SIDECARS:%=image-test/%)
$(SIDECARS:%=image-test/%): image-test/%: ## build and test one image
	$(call prepare,$@)
	@image=$$(scripts/build-image $*); IMAGE=$$image $(PYTEST) tests/images/test_$(subst -,_,$*).py tests/images/test_every_image.py

.PHONY: push-test
push-test: setup ## test make push and the CI pipelines against a registry on loopback
	$(PYTEST) tests/images/test_push.py tests/images/test_pipelines.py

# The rest

.PHONY: docs
docs: setup ## rewrite the generated parts of the documentation
	$(BIN)/python -m docs

.PHONY: wheels
wheels: setup ## build the wheels for a CI that publishes releases, and of airflow-bundle, in dist/wheels
	@for folder in runtime sidecars/s3-sync airflow-bundle; do \
	  $(BIN)/python -m flit_core.wheel --outdir dist/wheels $$folder; done

.PHONY: docs-site
docs-site: setup ## build the documentation site in dist/site/TAG, and check its links
	@scripts/docs-site

.PHONY: values
values: ## print the values for one deployment (AIRFLOW=3 EXECUTOR=LocalExecutor SOURCE=git ENV=dev KERBEROS=1 SYNC_PERM=1)
	@scripts/environment >&2
	@$(BIN)/python -m scripts.snippets values $(foreach name,AIRFLOW EXECUTOR SOURCE ENV KERBEROS SYNC_PERM,'$(name)=$($(name))')

.PHONY: snippets
snippets: setup ## regenerate the files in charts-snippets from charts-snippets/source
	$(BIN)/python -m scripts.snippets

.PHONY: clean
clean: ## remove .venv, .airflow, .krb5, .spark, .site, dist and every cache
	rm -rf .venv* .airflow .krb5 .spark .site dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
