# Each target sets up what it needs first: see tools/with_setup.sh.
IN_SETUP := bash tools/with_setup.sh
# Which of benchmarks/ make bench runs.
BENCH = run
# What make image calls the tasks' image in the registry of PREFIX; without PREFIX spark-kfp names it itself.
TASK_IMAGE = $(if $(PREFIX),--image=$(PREFIX)spark-kfp-task:$(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml))
# Makes an archive of Spark's classes below .tools/ first, for all the Sparks of the tests.
TESTS := SETUP_GROUPS=docs $(IN_SETUP) env SPARK_KFP_CACHE="$(CURDIR)/.tools/cache" sh -c 'spark-kfp archive && exec pytest -n 3 --dist loadfile --no-loadscope-reorder "$$@"' sh
WITH_SPHINX := uv run --frozen --extra spark --group docs

.DEFAULT_GOAL := help
.PHONY: help setup run compile generate story gate upload test slow lint fmt fuzz e2e kind image tag deps bench docs links ci hooks

help: ## list the targets
	@sed -n 's/^\([a-z0-9]*\):.*## /\1	/p' Makefile | expand -t 10

setup: ## uv, the Python packages and Java, where they are missing; every other target does this too
	@$(IN_SETUP) true

run: ## the whole pipeline on the bundled sample
	@$(IN_SETUP) spark-kfp run

compile: ## the pipeline for KFP, training_pipeline.yaml; PREFIX as for make image
	@$(IN_SETUP) spark-kfp compile $(TASK_IMAGE) $(ARGS)

generate: ## every file that is made from the code; CONTRIBUTING.md lists them
	@$(IN_SETUP) sh -c 'python data/make_sample.py && python tools/generate.py && python docs/reference.py && spark-kfp compile -o tests/kfp_pipeline/training_pipeline.yaml'

story: ## the life of a model on this machine: trained, served, drifted, retrained, canary, champion, taken back, under load
	@$(IN_SETUP) python tools/story.py $(ARGS)

gate: ## the whole pipeline on the bundled sample, judged by data/gate.toml
	@$(IN_SETUP) spark-kfp run
	@$(IN_SETUP) spark-kfp gate last

upload: ## the pipeline to a KFP server; PREFIX as for make image, ARGS as for spark-kfp upload
	@$(IN_SETUP) spark-kfp upload $(TASK_IMAGE) $(ARGS)

test: ## the quick tests that need no cluster, in less than five minutes on two processors; make slow runs the rest
	@$(TESTS) -m "not cluster and not slow"

slow: ## the tests that take long: whole runs by processes, the wheel, the commands of a page
	@$(TESTS) -m "slow and not cluster"

lint: ## style, types and who may import whom
	@$(IN_SETUP) ruff check
	@$(IN_SETUP) ruff format --check
	@$(IN_SETUP) mypy
	@$(IN_SETUP) lint-imports --no-logo

fmt: ## format the code and mend what can be mended
	@$(IN_SETUP) ruff check --fix
	@$(IN_SETUP) ruff format

fuzz: ## ten thousand random walks of the runner for the operator through states and faults
	@$(IN_SETUP) env SPARK_KFP_WALKS=10000 pytest tests/kfp_pipeline/runtime/spark_operator/test_random_walks.py

e2e: ## the compiled pipeline and faults on the cluster of KUBECONFIG; writes docs/faults.md; see tests/e2e/conftest.py
	@$(IN_SETUP) env SPARK_KFP_FAULT_TABLE=docs/faults.md pytest -m cluster tests/e2e $(ARGS)

kind: ## a selection of the cluster tests on a new kind cluster, which is deleted afterwards; needs docker, kind, kubectl and helm
	@$(IN_SETUP) bash tools/kind_tests.sh

image: ## the three images, by docker, podman or buildah; PUSH=true sends them to the registry of PREFIX
	@bash tools/make_image.sh

tag: ## is TAG the package's version, as v1.2.3?
	@$(IN_SETUP) python tools/check_tag.py "$$TAG"

deps: ## do the locked and the oldest allowed packages resolve and pass the quick tests?
	@$(IN_SETUP) python tools/check_dependencies.py $(ARGS)

bench: ## a table of time and memory against a hand-written script and scikit-learn; ARGS=--large adds ten million rows; BENCH=tuning and others of benchmarks/
	@$(IN_SETUP) sh -c 'UV_PROJECT_ENVIRONMENT=.tools/bench uv sync --frozen --quiet --only-group dev --only-group bench && \
	    exec python -m benchmarks.$(BENCH) "$$@"' sh $(ARGS)

docs: ## this documentation as a site, in docs/_build/html
	@$(IN_SETUP) $(WITH_SPHINX) sphinx-build -W --keep-going -q docs docs/_build/html
	@echo docs/_build/html/index.html

links: ## every link of the documentation that leads out; needs the network
	@$(IN_SETUP) $(WITH_SPHINX) sphinx-build -W --keep-going -q -b linkcheck docs docs/_build/links

ci: ## what continuous integration runs: lint, test, slow, docs, and the cluster tests where a cluster stands beside the project
	@bash .ci/run

hooks: ## run the linters at every commit
	@$(IN_SETUP) pre-commit install
