# The main commands are `make` and `make check`; the others are for development.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
export PATH := $(CURDIR)/.venv/bin:$(PATH)

OPTIONAL := crf slurm export web ssh
TAKES_crf := ; it is compiled, which requires a C++ compiler and Python's headers (Debian: g++, python3-dev)

.PHONY: run check lint test cluster cluster-slurm cluster-sharing package $(OPTIONAL) deps adopt-dvc adopt-snakemake adopt-ablations rulegraph lock

run: .venv/ready ## set up the environment, run the pipeline with params.yaml, print the scores
	snakemake --cores all --quiet host reason rules
	@echo && cat results/main/evaluate/summary.md && echo && echo "Open results/main/report/report.html"

check: lint test cluster ## all checks that must pass before a change is merged

lint: web # mypy reads the types of its packages
	ruff check .
	ruff format --check .
	mypy
	snakefmt --check Snakefile workflow
	snakemake --lint

test: .venv/ready
	OMP_NUM_THREADS=1 pytest -n 2 -m "not cluster and not slow"

cluster: ## test the pipeline on a two-node Slurm cluster, and sharing over SSH; skipped if it cannot be started
	$(MAKE) --jobs=2 cluster-slurm cluster-sharing # together, because Slurm's tests mostly wait

cluster-slurm: .venv/ready
	OMP_NUM_THREADS=1 pytest -m cluster -rs tests/cluster

cluster-sharing: .venv/ready
	OMP_NUM_THREADS=1 pytest -m cluster -rs --ignore tests/cluster

package: .venv/ready ## install the package as `pip install .` does, into a separate folder, and try it
	rm -rf build/package && uv pip install --quiet --no-deps --target build/package .
	test -f build/package/plda/report/page.html.j2 && test -f build/package/plda/use/serve.html
	cd build && PYTHONPATH=package package/bin/plda --version && PYTHONPATH=package package/bin/plda --help

$(OPTIONAL): .venv/ready ## install an extra of pyproject.toml, which explains what each is for
	uv pip install --quiet --compile-bytecode --require-hashes --build-constraints locks/requirements.lock -r locks/$@.lock || \
		{ echo "locks/$@.lock could not be installed$(TAKES_$@)"; exit 1; }

deps: .venv/ready ## after a change of imports: write the code of each stage into dvc.yaml
	python -m workflow.code

adopt-dvc: .venv/ready ## after a Snakemake run: record the results in DVC, so that it skips the stages
	@snakemake --dry-run 2>&1 | grep "Nothing to be done" > /dev/null || \
		{ echo "Snakemake has work left: run 'snakemake --cores all' first"; exit 1; }
	dvc commit --force --no-relink > /dev/null # links to DVC's cache would have new times

adopt-snakemake: .venv/ready ## after a DVC run: mark the results as up to date for Snakemake
	@dvc status --quiet || { echo "DVC has work left: run 'dvc repro' first"; exit 1; }
	snakemake --touch --cores 1 --quiet all

adopt-ablations: .venv/ready ## after `snakemake ablations`: save each run as a DVC experiment with its name
	@snakemake --dry-run ablations 2>&1 | grep "Nothing to be done" > /dev/null || \
		{ echo "Snakemake has work left: run 'snakemake --cores all ablations' first"; exit 1; }
	python -m workflow.experiments

rulegraph: .venv/ready ## draw the rule graph of docs/stages.md; requires Debian's package graphviz
	snakemake --rulegraph dot results/main/report/report.html | dot -Tsvg > docs/rulegraph.svg

LOCK := uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command "make lock"

lock: .venv/ready ## update all locked versions
	$(LOCK) pyproject.toml --group dev --output-file locks/requirements.lock
	echo uv | $(LOCK) - --output-file locks/bootstrap.lock
	for extra in $(OPTIONAL); do \
		python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['$$extra'], sep='\n')" | \
			$(LOCK) --constraint locks/requirements.lock - --output-file locks/$$extra.lock; \
	done

.venv/ready: locks/requirements.lock locks/bootstrap.lock
	python3 -m venv .venv || { echo "python3 cannot make a virtual environment: install python3-venv"; exit 1; }
	python -m pip install --quiet --disable-pip-version-check --require-hashes -r locks/bootstrap.lock
	uv pip install --quiet --compile-bytecode --require-hashes -r locks/requirements.lock
	touch $@
