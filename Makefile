# The only entry point. `make` lists the targets.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

SIDECARS := $(patsubst sidecars/%/Dockerfile,%,$(wildcard sidecars/*/Dockerfile))
# Of a target like push/NAME the name, of push all names.
named = $(if $(findstring /,$@),$(@F),$(SIDECARS))
BIN := .venv/bin
VALUES := PYTHONPATH=charts-snippets/source $(or $(PYTHON),python3) -m sidecar_values
WORKFLOWS := $(wildcard .github/workflows/*.yaml) charts-snippets/ci/github-actions.yaml
SHELL_SCRIPTS := .ci/run .ci/shared tests/images/airflow-base tests/images/git-sync-image $(filter-out %.py %/__pycache__,$(wildcard scripts/*))
# For the first line of a recipe: install the Debian packages of the targets, then update .venv, so that gssapi compiles.
prepare = @scripts/system-packages $(1); scripts/environment

# Variables for the environment or the command line:
#   PYTHON         the interpreter behind .venv (default: 3.13, the images' own, else the first Python >= 3.11)
#   AIRFLOW        3 or 2.11, for demo-airflow (default: both, one after the other); for values 3 or 2
#   AIRFLOW_CHART  folder with the official chart; tests render it when helm is on PATH
#   MINIO_BIN, VERSITYGW_BIN, WEED_BIN, S3PROXY_JARS, CEPH_DEBIAN, HADOOP_JARS  programs for test-full (default: scripts/test-programs installs what it can)
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
export PYTHON AIRFLOW_CHART BUILDER BASE_IMAGE AIRFLOW_IMAGE GIT_SYNC_IMAGE TAG REGISTRY SIGN_KEY PLATFORMS SOURCE

# Writes bytecode even if the environment disables it: otherwise each worker compiles all tests, which takes 15 s.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest
# More workers than cores, because tests mostly wait; each worker runs whole files.
SIDE_BY_SIDE := --numprocesses 6 --dist loadfile --no-loadscope-reorder

.PHONY: help
help: ## list the targets
	@awk '/^# [A-Z][a-z ]+$$/ { print "\n" substr($$0, 3) } \
	  /^[a-z][^#]*:.*## / { \
	    name = $$1; sub(/:$$/, "", name); text = $$0; sub(/.*## /, "", text); \
	    if (match($$0, /%=[a-z-]+[/]/)) name = name ", " substr($$0, RSTART + 2, RLENGTH - 2) "NAME"; \
	    printf "  make %-28s %s\n", name, text }' $(MAKEFILE_LIST)
	@echo; echo "NAME is one of: $(SIDECARS)"

# First steps

.PHONY: demo
demo: ## run the sidecars against an S3 server, a KDC and a git server; as root on Debian it installs what they need
	$(call prepare,$@)
	@GIT_SYNC_BIN=$$(scripts/git-sync) $(BIN)/python -m demo

.PHONY: demo-airflow
demo-airflow: ## run all four with a real Airflow 3 and 2.11, which it installs (AIRFLOW=3: only one)
	$(call prepare,$@)
	@$(BIN)/python -m demo.airflow $(AIRFLOW)

# The program gets every word of the command line, to refuse those that it does not know.
.PHONY: values
values: ## print the values for one deployment (EXECUTOR=KubernetesExecutor SOURCE=listing KERBEROS=1 SYNC_PERM=1)
	@$(VALUES) $(foreach name,AIRFLOW EXECUTOR SOURCE ENDPOINT LAYOUT GATE VERSIONS SIGNED KERBEROS SYNC_PERM,'$(name)=$($(name))') \
	  $(patsubst %,'%',$(filter-out PYTHON=%,$(MAKEOVERRIDES)) $(filter-out values,$(MAKECMDGOALS)))

# Development

.PHONY: setup
setup: ## create or update .venv from the lock, with wheels only; quick if nothing changed
	@scripts/environment

.PHONY: setup-test
setup-test: ## install the packages for tests and images (Debian, root): servers, a compiler, podman
	$(call prepare,test images)

.PHONY: lock
lock: setup ## compile requirements/ from the pyproject files (UPGRADE=1: newest versions; CHECK=1: fail if it differs)
	scripts/lock $(if $(UPGRADE),--upgrade) $(if $(CHECK),--check)

.PHONY: format
format: setup ## reformat the Python code and fix what ruff can fix
	$(BIN)/ruff check --fix --exit-zero --quiet
	$(BIN)/ruff format

.PHONY: lint
lint: setup ## run all static checks: code, types, imports, YAML, shell, Dockerfiles
	$(BIN)/mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-cache
	$(BIN)/yamllint --strict .
	$(BIN)/shellcheck $(SHELL_SCRIPTS)
	$(BIN)/hadolint $(SIDECARS:%=sidecars/%/Dockerfile) charts-snippets/ci/publisher.Dockerfile tests/*/*.Dockerfile
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows $(WORKFLOWS)
	$(BIN)/python scripts/lint_ci.py
	$(BIN)/python scripts/lint_figures.py
	$(VALUES) check

.PHONY: docs snippets
docs snippets: setup ## rewrite the generated parts of the documentation, and the values in charts-snippets
	$(VALUES) write
	$(BIN)/python -m docs

.PHONY: docs-site
docs-site: setup ## build the documentation site in dist/site/TAG, and check its links
	@scripts/docs-site

# Tests

.PHONY: test
test: $(if $(VERSION),setup,setup-test) ## run the tests that need no images or cluster (VERSION=3.11: those of the modules, with another Python)
ifdef VERSION
	python=$$(scripts/find-python $(VERSION)); PYTHON=$$python scripts/environment .venv-$(VERSION)
	$(PYTEST:$(BIN)/%=.venv-$(VERSION)/bin/%) $(SIDE_BY_SIDE) tests/runtime $(subst -,_,$(SIDECARS:%=tests/%))
else
	$(PYTEST) --ignore tests/images --ignore tests/cluster $(SIDE_BY_SIDE)
endif

.PHONY: test/chart $(SIDECARS:%=test/%)
test/chart $(SIDECARS:%=test/%): test/%: ## run the tests of the values, or of one sidecar
	$(call prepare,$@)
	$(PYTEST) $(wildcard tests/$(subst -,_,$*) tests/scenarios/$(subst -,_,$*))

.PHONY: test-full
test-full: ## run the tests of make test and the slow ones, with full counts
	$(call prepare,test test-full demo-airflow)
	eval "$$(scripts/test-programs)"; $(PYTEST) --ignore tests/images --ignore tests/cluster --full $(SIDE_BY_SIDE)

.PHONY: verify-aws
verify-aws: setup ## try S3, IAM and ECR in a real AWS account, then clean up (BUCKET=…)
	@BUCKET='$(BUCKET)' $(BIN)/python scripts/verify_aws.py

.PHONY: test-cluster
test-cluster: ## start the values on the cluster of KUBECONFIG (FULL=1: also a real Airflow)
	$(call prepare,$@ images)
	eval "$$(scripts/test-programs versitygw)"; $(PYTEST) --timeout=900 $(if $(FULL),--full) tests/cluster

.PHONY: mutants
mutants: setup-test ## plant faults in the code, and print the share that the tests notice (SEED=1 COUNT=100 ONLY=runtime; PROMISES=1: break each documented promise)
	$(BIN)/python -m tests.mutants $(if $(PROMISES),--promises) $(if $(SEED),--seed $(SEED)) $(if $(COUNT),--count $(COUNT)) $(if $(ONLY),--only $(ONLY)) $(ARGS)

.PHONY: soak
soak: ## run all sidecars under random faults and kills (MINUTES=25 SEED=7 ARGS="--help")
	$(call prepare,$@)
	$(BIN)/python -m soak $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED)) $(ARGS)

benches := bundle deploy failover network $(SIDECARS)
.PHONY: bench $(benches:%=bench/%)
bench $(benches:%=bench/%): ## compare with the tools that they replace (bench/bundle: DAG versions; bench/network: 2 to 80 ms away; bench/deploy: until Airflow has it; bench/failover: after an outage; ARGS="--help")
	$(call prepare,$(if $(findstring /,$@),$@,$(benches:%=bench/%)))
	for name in $(if $(findstring /,$@),$(@F),$(benches)); do $(BIN)/python -m bench $$name $(ARGS); done

# Images

.PHONY: images $(SIDECARS:%=image/%)
images $(SIDECARS:%=image/%): ## build all images, or one
	@for name in $(named); do scripts/build-image $$name; done

.PHONY: push $(SIDECARS:%=push/%)
push $(SIDECARS:%=push/%): ## build all images, or one, and push them to REGISTRY; a tag is never overwritten; logs in to ECR
	@for name in $(named); do scripts/push-image $$name; done

.PHONY: sbom $(SIDECARS:%=sbom/%)
sbom $(SIDECARS:%=sbom/%): ## write the bills of materials to dist/NAME.cdx.json, in CycloneDX format
	@for name in $(named); do scripts/sbom $$name; done

.PHONY: image-test $(SIDECARS:%=image-test/%)
image-test $(SIDECARS:%=image-test/%): ## build and test all images, or one; with all, also make push
	$(call prepare,$(named:%=image-test/%))
	@for name in $(named); do \
	  image=$$(scripts/build-image $$name); \
	  IMAGE=$$image $(PYTEST) tests/images/test_$${name//-/_}.py tests/images/test_every_image.py; \
	done
	$(if $(findstring /,$@),,$(PYTEST) tests/images/test_push.py)

.PHONY: wheels
wheels: setup ## build the wheels for a CI that publishes releases, and of airflow-bundle, in dist/wheels
	@for folder in runtime sidecars/s3-sync airflow-bundle; do \
	  $(BIN)/python -m flit_core.wheel --outdir dist/wheels $$folder; done
