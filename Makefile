# The only front door. `make` lists what there is.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

SIDECARS := $(patsubst sidecars/%/Dockerfile,%,$(wildcard sidecars/*/Dockerfile))
BIN := .venv/bin
WORKFLOWS := $(wildcard .github/workflows/*.yaml) charts-snippets/ci/github-actions.yaml
SHELL_SCRIPTS := .ci/run .ci/shared tests/images/airflow-base tests/images/git-sync-image $(filter-out %.py %/__pycache__,$(wildcard scripts/*))
# For the first line of a recipe: the Debian packages of some targets, then .venv, which has gssapi once it compiles.
prepare = @scripts/system-packages $(1); scripts/environment

# What the environment or the command line may set:
#   PYTHON         the interpreter behind .venv (default: the first Python >= 3.11 on PATH)
#   AIRFLOW        3 or 2.11, for demo-airflow (default: both, one after the other); for values 3 or 2
#   AIRFLOW_CHART  folder with the official chart; tests render it when helm is on PATH
#   OLD_AIRFLOW_CHART  the same, version 1.13.1: what it makes of the published example
#   MINIO_BIN, VERSITYGW_BIN  S3 servers for test-full (default: scripts/s3-servers builds them where Go is)
#   GIT_SYNC_BIN   the real git-sync, for tests, demos, bench and soak (default: on PATH; without one they leave it out)
#   GIT_SYNC_SUITE  folder of git-sync's own test_e2e.sh, for make test-full, as root (without it they leave it out)
#   KUBECONFIG     the cluster of test-cluster, with kubectl on PATH; tests/cluster/README.md has the rest
#   BUILDER        docker, buildah or podman (default: the first that works)
#   BASE_IMAGE     another base than the Dockerfile's
#   AIRFLOW_IMAGE  the same for sync-perm: your own Airflow image
#   GIT_SYNC_IMAGE what git-sync-wrapper takes /git-sync from (default: the official image)
#   TAG, REGISTRY  the image is [REGISTRY/]NAME:TAG (default: the 12-character commit)
#                  docs-site: the name of this version of the documentation (default: dev)
#   SIGN_KEY       for push: the key that cosign signs with, such as awskms:///alias/images
#   PLATFORMS      for push, such as linux/amd64,linux/arm64 (default: this machine's)
#   SOURCE         web address of this repository, for the images' labels and the site; for values where DAGs come from
export PYTHON AIRFLOW_CHART OLD_AIRFLOW_CHART BUILDER BASE_IMAGE AIRFLOW_IMAGE GIT_SYNC_IMAGE TAG REGISTRY SIGN_KEY PLATFORMS SOURCE

# With its bytecode kept, whatever the environment says: otherwise each worker compiles all tests, for 15 s.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest
# More tests at once than cores, as most of them wait most of the time; one file stays together.
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
demo: setup ## show the sidecars at work against an S3 server, a KDC and a git server
	@$(BIN)/python -m demo

.PHONY: demo-airflow
demo-airflow: ## show all four beside a real Airflow 3 and 2.11 (AIRFLOW=3: one; installs them)
	$(call prepare,$@)
	@$(BIN)/python -m demo.airflow $(AIRFLOW)

.PHONY: quickstart
quickstart: ## install Airflow 3 with versioned DAGs on kind (CONTEXT=…: on another cluster)
	@scripts/quickstart

.PHONY: test
test: setup-test ## run the tests that need no images, with moderate counts
	$(PYTEST) --ignore tests/images --ignore tests/cluster $(SIDE_BY_SIDE)

# Development

.PHONY: setup
setup: ## make .venv what the lock says, of wheels alone; quick when nothing changed
	@scripts/environment

.PHONY: lock
lock: setup ## compile requirements/ from the pyproject files (UPGRADE=1: newest versions)
	scripts/lock $(if $(UPGRADE),--upgrade)

.PHONY: lock-check
lock-check: setup ## fail when requirements/ does not follow from the pyproject files
	scripts/lock --check

.PHONY: format
format: setup ## reformat the Python code and fix what ruff can fix
	$(BIN)/ruff check --fix --exit-zero --quiet
	$(BIN)/ruff format

.PHONY: lint
lint: setup types ## check everything that needs no test: code, imports, YAML, shell, Dockerfiles
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/yamllint --strict .
	$(BIN)/shellcheck $(SHELL_SCRIPTS)
	$(BIN)/hadolint $(SIDECARS:%=sidecars/%/Dockerfile) charts-snippets/ci/publisher.Dockerfile
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows $(WORKFLOWS)
	$(BIN)/python scripts/lint_ci.py
	$(BIN)/python scripts/lint_words.py
	$(BIN)/python -m scripts.snippets --check

.PHONY: types
types: setup ## check the types
	$(BIN)/mypy

# Tests

.PHONY: setup-test
setup-test: ## install what the tests use (Debian, root): servers, a compiler, a browser
	$(call prepare,test)

.PHONY: $(SIDECARS:%=test/%)
$(SIDECARS:%=test/%): test/%: ## run the tests of one sidecar
	$(call prepare,$@)
	$(PYTEST) $(wildcard tests/$(subst -,_,$*) tests/scenarios/$(subst -,_,$*))

.PHONY: test-full
test-full: ## run the same tests with the full counts
	$(call prepare,test test-full demo-airflow)
	eval "$$(scripts/s3-servers)"; $(PYTEST) --ignore tests/images --ignore tests/cluster --full $(SIDE_BY_SIDE)

.PHONY: scenarios
scenarios: ## run the tests of whole processes against real servers
	$(call prepare,$@)
	$(PYTEST) tests/scenarios

.PHONY: mutants
mutants: setup ## fail for each fault planted in the code that no test notices (SEED=1 COUNT=100 ONLY=runtime)
	$(BIN)/python -m tests.mutants $(if $(SEED),--seed $(SEED)) $(if $(COUNT),--count $(COUNT)) $(if $(ONLY),--only $(ONLY)) $(ARGS)

.PHONY: soak
soak: ## run all sidecars among random faults and kills (MINUTES=25 SEED=7 ARGS="--help")
	$(call prepare,$@)
	$(BIN)/python -m soak $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED)) $(ARGS)

.PHONY: bench
bench: bench/bundle $(SIDECARS:%=bench/%) ## measure the sidecars beside their peers, as ratios

.PHONY: bench/bundle
bench/bundle: ## measure DAG versions beside the bundles of Airflow (ARGS="--help")
	$(call prepare,$@)
	$(BIN)/python -m bench bundle $(ARGS)

.PHONY: $(SIDECARS:%=bench/%)
$(SIDECARS:%=bench/%): bench/%: ## measure one sidecar beside its peers (ARGS="--help")
	$(call prepare,$@)
	$(BIN)/python -m bench $* $(ARGS)

.PHONY: chart-test
chart-test: ## render charts-snippets against the official chart in AIRFLOW_CHART
	$(call prepare,$@)
	$(PYTEST) tests/chart

.PHONY: test-cluster
test-cluster: ## start charts-snippets and a dozen of make values on the cluster of KUBECONFIG (FULL=1: with Airflow)
	$(call prepare,$@ images)
	eval "$$(scripts/s3-servers versitygw)"; $(PYTEST) --timeout=900 $(if $(FULL),--full) tests/cluster

.PHONY: verify-aws
verify-aws: setup ## try S3, KMS, IAM, ECR and CodeCommit in a real account, and remove it all (BUCKET=… KMS_KEY=… CLUSTER=…)
	@$(if $(BUCKET),BUCKET='$(BUCKET)') $(BIN)/python scripts/verify_aws.py

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

.PHONY: base-images
base-images: ## write the newest digests of the base images into the Dockerfiles
	@scripts/pin-base-images

.PHONY: sbom
sbom: $(SIDECARS:%=sbom/%) ## write dist/NAME.cdx.json for all images: what is in them

.PHONY: $(SIDECARS:%=sbom/%)
$(SIDECARS:%=sbom/%): sbom/%: ## write what is in one image, in CycloneDX
	@scripts/sbom $*

.PHONY: image-test
image-test: $(SIDECARS:%=image-test/%) push-test ## build and test all images

.PHONY: $(SIDECARS:%=image-test/%)
$(SIDECARS:%=image-test/%): image-test/%: ## build and test one image
	$(call prepare,$@)
	@image=$$(scripts/build-image $*); IMAGE=$$image $(PYTEST) tests/images/test_$(subst -,_,$*).py tests/images/test_every_image.py

.PHONY: push-test
push-test: setup ## test push, and the pipelines that push, against a registry on loopback
	$(PYTEST) tests/images/test_push.py tests/images/test_pipelines.py

# The rest

.PHONY: docs
docs: setup ## rewrite the generated parts of the documentation
	$(BIN)/python -m docs

.PHONY: docs-site
docs-site: setup ## build the site of the documentation into dist/site/TAG and check its links
	@scripts/docs-site

.PHONY: values
values: ## print the values of one deployment (AIRFLOW=3 EXECUTOR=LocalExecutor SOURCE=git ENV=dev KERBEROS=1 SYNC_PERM=1)
	@scripts/environment >&2
	@$(BIN)/python -m scripts.snippets values $(foreach name,AIRFLOW EXECUTOR SOURCE ENV KERBEROS SYNC_PERM,'$(name)=$($(name))')

.PHONY: snippets
snippets: setup ## rewrite the values of charts-snippets from charts-snippets/source
	$(BIN)/python -m scripts.snippets

.PHONY: clean
clean: ## remove .venv, .airflow, .spark, .site, dist and every cache
	rm -rf .venv .airflow .spark .site dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
