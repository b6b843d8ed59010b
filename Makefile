# Everything a person or CI runs. `make` alone lists the targets.

# A Python of 3.11 or newer; everything else is brought by the targets themselves.
PYTHON ?= python3
# `local` brings up a Kubernetes of its own; `external` uses the one of the current KUBECONFIG, and then OPERATOR_IMAGE,
# INDEXER_IMAGE and POSTGRES_IMAGE must name images that it can pull.
CLUSTER ?= local
OPERATOR_IMAGE ?=
INDEXER_IMAGE ?=
POSTGRES_IMAGE ?=
export CLUSTER OPERATOR_IMAGE INDEXER_IMAGE POSTGRES_IMAGE

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TEST_ARGS ?=
# What `bench` runs: `all`, or any of load memory check sweep build repair restart; at 10k, 100k or 1M rows, or `all` of these sizes.
BENCH ?= all
ROWS ?= 1M
REPS ?= 5
BENCH_ARGS ?=
COUNT ?= 1000

.DEFAULT_GOAL := help
.PHONY: help demo down try env venv test test-unit test-slow break bench bench-fleet lint format crds manifests docs previews site requirements

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { gsub(/[$$][$$]/, "$$"); printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: venv ## real Kubernetes, Postgres and rows: serve, prove, break, heal (leaves the cluster up)
	@$(BIN)/python -m examples.wordnet.demo

down: ## end the demo's cluster
	@$(PYTHON) -m cluster down --name demo

try: venv ## the same on a laptop: no root, no Kubernetes, two minutes (Ctrl-C ends it)
	@$(BIN)/python -m examples.wordnet.laptop

env: ## for the shell: eval "$$(make -s env)" brings kubectl, helm and the demo's KUBECONFIG
	@$(PYTHON) -m examples.wordnet.shell_env

venv: $(STAMP) ## the virtual environment that the other targets use

$(STAMP): requirements/dev.txt operator/pyproject.toml indexer/pyproject.toml cli/pyproject.toml
	@PYTHON="$(PYTHON)" scripts/venv.sh $(VENV)
	@touch $@

test: venv ## unit, contract, integration and end-to-end tests
	@$(BIN)/python -m tests $(TEST_ARGS)

test-unit: venv ## only what needs no socket, no database and no cluster
	@$(BIN)/python -m pytest tests/unit $(TEST_ARGS)

test-slow: venv ## all tests, with the full form of the long ones
	@$(BIN)/python -m tests --slow $(TEST_ARGS)

break: venv ## break promises on purpose, one by one, and see a test fail for each
	@$(BIN)/python scripts/break_the_code.py

bench: venv ## ratios of cost to a limit or the naive way; BENCH=load ROWS=100k for one row of it, BENCH=forget to remove its tables
	@$(BIN)/python -m benchmarks $(BENCH) --rows $(ROWS) --reps $(REPS) $(BENCH_ARGS)

bench-fleet: venv ## many VectorIndexes made at once: time against a bare client, requests and memory of the operator; COUNT=1000
	@$(BIN)/python -m benchmarks.fleet --count $(COUNT)

lint: venv ## format, lint, types, layers, chart, security
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	cmp crds/vectorindexes.yaml charts/vectorindex/files/vectorindexes.yaml
	"$$($(BIN)/python -m cluster tools)/helm" lint --strict --quiet charts/vectorindex
	@$(MAKE) --no-print-directory security

security: venv ## let checkov look at every manifest that is shipped or made, and at the Dockerfiles
	@$(BIN)/python -m scripts.check_manifests

format: venv ## let ruff write the code as it wants it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

crds: ## copy the definition into the chart
	cp crds/vectorindexes.yaml charts/vectorindex/files/vectorindexes.yaml
	@$(MAKE) --no-print-directory manifests

manifests: venv ## write what is made from the chart: deploy/install.yaml, and the examples in Chart.yaml
	@$(BIN)/python -m scripts.chart_examples
	@$(BIN)/python -m scripts.install_manifests

docs: venv ## write the pages and dashboards that are made from the code
	@$(BIN)/python scripts/metrics_page.py
	@$(BIN)/python scripts/reference_page.py
	@$(BIN)/python scripts/sizing_page.py
	@$(BIN)/python -m tests.support.gitops
	@$(BIN)/python scripts/values_page.py
	@$(BIN)/python -m scripts.dashboards

previews: venv ## draw the dashboards into docs/images, of the demo's cluster with a real Prometheus (a quarter of an hour)
	@$(BIN)/python -m scripts.previews

site: venv ## build the pages of docs/ as a site into site/, with every link checked
	@$(BIN)/python -m sphinx -q -W --keep-going -c docs/site -d site/.doctrees -b html . site
	@echo "open site/index.html"

requirements: ## compile requirements/*.in anew, with hashes (needs uv)
	@for source in requirements/*.in; do \
	  echo "$$source" && uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-annotate \
	    --output-file "$${source%.in}.txt" "$$source" || exit 1; \
	done
