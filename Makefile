# Two commands matter: `make demo` shows the main job on real servers, `make test` proves it. Both set up all they need.
PYTHON ?= python3
UV := .tools/bin/uv
BIN := .venv/bin
export UV_PYTHON_DOWNLOADS := never
export JETKEEP_CACHE := $(CURDIR)/.servers

.PHONY: demo test check matrix slow patient large stores image e2e-api e2e-node e2e-velero bench setup clean help

help: ## what there is
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 12

setup: .venv/ready .servers/ready

$(UV): requirements/uv.txt
	@echo "set-up: the installer"
	@$(PYTHON) -m venv .tools
	@.tools/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@touch $(UV)

# A kernel compiled from an older source would run silently: remove it before every build.
.venv/ready: $(UV) pyproject.toml uv.lock $(wildcard src/jetkeep/codecs/kernels/*.py)
	@echo "set-up: jetkeep and what it needs (locked)"
	@rm -rf build src/jetkeep/codecs/kernels/*.so src/jetkeep/codecs/kernels/*.c
	@$(UV) sync --quiet --locked --all-groups --python $(PYTHON) --reinstall-package jetkeep
	@touch $@

.servers/ready: .venv/ready src/jetkeep/servers.txt
	@echo "set-up: the servers that tests and demo run"
	@PATH="$(CURDIR)/.tools/bin:$$PATH" $(BIN)/python -m jetkeep.sandbox
	@touch $@

demo: setup ## back up, destroy, restore, compare: on throw-away servers
	@$(BIN)/jetkeep demo

test: setup ## the default test suite
	@$(BIN)/python -m pytest -n 2

check: setup ## lint, types, import contracts
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

matrix: setup ## every server version to every other
	@$(BIN)/python -m pytest -n 2 -m matrix

slow: setup ## crash simulation, many more property examples
	@$(BIN)/python -m pytest -n 2 -m slow

patient: setup ## a kill at every NATS call, a fault at every S3 call, real stalls of 30 s (20 minutes)
	@$(BIN)/python -m pytest -n 2 -m patient --timeout 900

large: setup ## 50 million gaps, 64 MiB messages, 10^5 subjects, 1,000 streams
	@$(BIN)/python -m pytest -m large --timeout 900

stores: setup ## the suite of stores on emulators of Azure and GCS (need npm, Go) and on the bucket in JETKEEP_TEST_STORE
	@$(BIN)/python -m tests.object_stores.emulators
	@$(BIN)/python -m pytest -n 2 -m stores

image: setup ## the OCI image, on a Debian base of its own making (needs root, buildah, debootstrap): dist/
	@$(BIN)/python -m tests.kube.image

e2e-api: setup ## a real API server takes every manifest (root, etcd, openssl, Go; 1 minute, once 10 to build)
	@$(BIN)/python -m tests.kube.binaries
	@$(BIN)/python -m tests.kube.local_path
	@$(BIN)/python -m tests.kube.helm
	@$(BIN)/python -m tests.kube.private $(BIN)/python -m pytest -m e2e_api --timeout 300 tests/e2e_api

e2e-node: image ## a real node: jobs back up, are killed, run out of everything; the node is lost, all comes back (root; 10 minutes)
	@$(BIN)/python -m tests.kube.binaries
	@$(BIN)/python -m tests.kube.local_path
	@$(BIN)/python -m tests.kube.helm
	@$(BIN)/python -m tests.kube.private $(BIN)/python -m pytest -m e2e_node --timeout 900

e2e-velero: image ## Velero on the real node: a namespace is saved, lost, brought back and restored (root, Go; 2 minutes, once 15 to build)
	@$(BIN)/python -m tests.kube.binaries
	@$(BIN)/python -m tests.kube.local_path
	@$(BIN)/python -m tests.kube.velero
	@$(BIN)/python -m tests.kube.private $(BIN)/python -m pytest -m e2e_velero --timeout 600 tests/e2e_velero

bench: setup ## side by side with the official CLI (needs its binary or Go)
	@$(BIN)/python benchmarks/run.py

clean: ## remove what set-up made
	rm -rf .venv .tools .servers build src/*.egg-info
