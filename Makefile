# Every target works in a fresh clone on Debian 12 as root. Missing packages are installed, and reported.

SHELL = /bin/bash
.SHELLFLAGS = -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL = help

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/dockerd-guard
VENV := $(CACHE)/venv
OLDEST := $(CACHE)/venv-oldest
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' dockerd_guard/__init__.py)
# In Debian's order a version with ~ is before the one without, as one with .dev is in Python's.
DEB := dist/dockerd-guard_$(subst .dev,~dev,$(VERSION))_all.deb
RELEASE ?= bookworm
SYSTEMDLINT := $(CACHE)/systemdlint
JOBS ?= 3
DOCUMENTS := README.md NEWS.md CONTRIBUTING.md docs

PACKAGED := setup.cfg pyproject.toml LICENSE config.example.yaml $(DOCUMENTS) dockerd_guard packaging
SOURCES := $(shell find $(PACKAGED) -name __pycache__ -prune -o -type f -print)
MACHINES := python3 -m tests.machines

.PHONY: help demo test check lint unit fuzz system-test slow-test differential simulate storm mutation bench soak machine docs deb wheel apt-repo collection lintian piuparts venv \
  venv-oldest lock clean clean-cache

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: ## show an exposure and its correction on a temporary machine; without root: the linter on files
	@if $(MACHINES) prepare; then $(MAKE) --silent deb && python3 -m tests.demo $(DEB); else python3 -m tests.demo_files; fi

test: check ## all checks, then the system tests on Debian 12, 13 and sid
	@$(MACHINES) build
	@$(MAKE) --silent lintian
	$(VENV)/bin/python -m tests.simulation --decisions 5000
	$(VENV)/bin/python -m pytest tests/system --numprocesses=$(JOBS) --durations=10

check: lint unit ## lint, types and unit tests, without machines (minutes)
	@echo "all checks passed"

lint: venv ## ruff, mypy, the structure of the package, and the hooks of .pre-commit-config.yaml
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy dockerd_guard tests packaging/*.py
	$(VENV)/bin/python -m tests.structure
	@if [ -e .git ]; then SKIP=ruff,mypy .ci/venv pre-commit run --all-files; else echo "No git here: no hooks are run."; fi

unit: venv venv-oldest ## unit tests, with the newest and with the oldest supported libraries
	$(VENV)/bin/python -m pytest tests/unit -q --numprocesses=$(JOBS) --cov=dockerd_guard --cov-report=
	# Code that calls systemd and dockerd is covered by the system tests, which are not measured here.
	$(VENV)/bin/coverage report --skip-covered --sort=cover
	$(OLDEST)/bin/python -m pytest tests/unit -q -m libraries

fuzz: venv ## coverage-guided fuzzing of every reader: SECONDS=600 for each, TARGETS="unit host" (default: all)
	@$(VENV)/bin/python -c 'import atheris' 2>/dev/null || \
	  $(VENV)/bin/python -m pip install --quiet --no-deps --require-hashes --requirement tests/requirements-fuzz.lock
	$(VENV)/bin/python -m tests.fuzz run --seconds $(or $(SECONDS),600) $(TARGETS)

system-test: venv deb ## run system tests: TEST=tests/system/test_x.py::test_y[bookworm]; KEEP=1 leaves the machine running
	$(VENV)/bin/python -m pytest '$(or $(TEST),tests/system)' $(if $(KEEP),--keep)

differential: venv ## compare with the real systemd and dockerd: N=5000 trees for each release, SEED=1 (default: random)
	@$(MACHINES) build
	$(VENV)/bin/python -m tests.differential run --count $(or $(N),1000) $(if $(SEED),--seed $(SEED))

storm: venv ## restart a whole fleet at once, on a real etcd: STORMS=100 CLIENTS=1000, SLOTS=5, HOSTS=10000 without one, SEED=1
	$(VENV)/bin/python -m tests.storm $(if $(STORMS),--storms $(STORMS)) $(if $(CLIENTS),--clients $(CLIENTS)) \
	  $(if $(SLOTS),--slots $(SLOTS)) $(if $(HOSTS),--simulated $(HOSTS)) $(if $(SEED),--seed $(SEED)) --release $(RELEASE)

slow-test: venv deb wheel ## tests that take too long for every day: TEST=tests/system/slow_crash.py (default: all)
	$(VENV)/bin/python -m pytest $(or $(TEST),tests/system/slow_*.py tests/fuzz/growth.py)

simulate: venv ## play random histories on simulated hosts: DECISIONS=1000000, SEED=1
	$(VENV)/bin/python -m tests.simulation --decisions $(or $(DECISIONS),100000) $(if $(SEED),--seed $(SEED))

mutation: venv ## mutate the decisions and run their unit tests: MODULES="decide gate"
	$(VENV)/bin/python -m tests.mutation $(MODULES)

docs: venv deb ## renew the program's output in README.md and docs/, from a machine
	@$(MACHINES) prepare
	$(VENV)/bin/python -m tests.docs $(DEB)

bench: venv deb ## time and memory, beside other programs: RELEASE=bookworm, QUICK=1, ROWS="cold event", AGAINST=FILE (an hour)
	@[ -d $(SYSTEMDLINT) ] || $(VENV)/bin/python -m pip install --quiet --target $(SYSTEMDLINT) systemdlint==1.4.0
	$(VENV)/bin/python -m tests.bench $(DEB) $(ROWS) --release $(RELEASE) --systemdlint $(SYSTEMDLINT) \
	  $(if $(QUICK),--quick) $(if $(AGAINST),--against $(AGAINST))

soak: venv deb ## random drift and restarts for HOURS=1: RELEASE=bookworm, SEED=1 (default: random)
	$(VENV)/bin/python -m tests.system.soak $(DEB) --release $(RELEASE) --hours $(or $(HOURS),1) \
	  $(if $(SEED),--seed $(SEED)) --curve dist/soak-$(RELEASE).csv

machine: ## open a shell in a temporary machine with the current .deb: RELEASE=trixie; or in a kept one: NAME=kept-trixie
	@$(if $(NAME),,$(MAKE) --silent deb)
	@$(MACHINES) shell $(or $(NAME),$(RELEASE) --package $(DEB))

deb: $(DEB) ## build dist/dockerd-guard_VERSION_all.deb

$(DEB): $(SOURCES)
	@$(MACHINES) prepare-packages build-essential debhelper dh-python pybuild-plugin-pyproject python3-all python3-setuptools
	@packaging/build $(DEB) $(PACKAGED)

apt-repo: deb ## make a signed apt repository in dist/apt: URI=https://HOST/PATH, KEY=FINGERPRINT (default: a new key)
	@$(MACHINES) prepare-packages reprepro gnupg
	@packaging/apt-repo $(DEB) dist/apt $(or $(URI),file:$(CURDIR)/dist/apt) $(KEY)

wheel: venv ## build the Python package, dist/*.whl and *.tar.gz: the same bytes each time
	rm -f dist/*.whl dist/*.tar.gz
	SOURCE_DATE_EPOCH=$$(date --date "$$(sed -n 's/^ -- .*>  //p;T;q' packaging/debian/changelog)" +%s) \
	  $(VENV)/bin/python packaging/distributions.py dist $(PACKAGED)
	$(VENV)/bin/twine check --strict dist/*.whl dist/*.tar.gz

collection: ## build the Ansible collection, dist/dockerd_guard-agent-VERSION.tar.gz
	@command -v ansible-galaxy > /dev/null || $(MACHINES) prepare-packages ansible-core
	rm -f dist/dockerd_guard-agent-*.tar.gz
	ansible-galaxy collection build packaging/ansible --output-path dist

lintian: deb ## check the package with lintian; any output is a failure
	@$(MACHINES) prepare-packages lintian
	# --fail-on also counts overridden tags.
	@output=$$(lintian --allow-root --display-info --pedantic $(DEB) 2>&1) && test -z "$$output" || { echo "$$output"; exit 1; }

piuparts: deb ## install, upgrade, remove and purge on each release, and check for leftovers (a minute each)
	@$(MACHINES) prepare-packages piuparts dpkg-dev
	@python3 -m tests.older $(DEB) build/older
	# Every installation leaves debconf's tmp.ci behind.
	for release in bookworm trixie sid; do \
	  root=$$(python3 -c "from tests.machines.image import base; print(base('$$release'))"); \
	  piuparts --distribution=$$release --existing-chroot=$$root --ignore-regex='/var/cache/debconf/tmp.ci/?' \
	    --bindmount=$(CURDIR)/build/older --extra-repo='deb [trusted=yes] file://$(CURDIR)/build/older ./' \
	    $(DEB) > build/piuparts-$$release.log || { tail --lines=40 build/piuparts-$$release.log; exit 1; }; \
	  grep --quiet 'Unpacking dockerd-guard (.*) over (0~before-' build/piuparts-$$release.log; \
	  echo "$$release: $$(tail --lines=2 build/piuparts-$$release.log | head --lines=1)"; \
	done

# $(call install,VENV,LOCK): a virtual environment with the packages of a lock file, renewed when that file changes.
# The lock is complete. With --require-hashes, pip's resolver refuses a package[extra] if a newer one is out (pip#9644).
define install
	@if ! cmp --quiet $(2) $(1)/$(notdir $(2)); then \
	  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'; \
	  python3 -c 'import ensurepip' 2>/dev/null || $(MACHINES) prepare-packages python3-venv; \
	  echo "Installing $(2) into $(1)."; \
	  python3 -m venv --clear $(1); \
	  $(1)/bin/python -m pip install --quiet --no-deps --require-hashes --requirement $(2); \
	  cp $(2) $(1); \
	fi
endef

venv:
	$(call install,$(VENV),tests/requirements.lock)

# Other packages come from the first environment: a path in a .pth file is searched after the file's directory.
venv-oldest: venv
	$(call install,$(OLDEST),tests/requirements-oldest.lock)
	@cd $(OLDEST)/lib/python3.*/site-packages && echo $(VENV)/lib/python3.*/site-packages > newest.pth

lock: venv ## renew tests/*.lock: the newest versions of the packages in tests/*.in, with hashes
	for each in $(basename $(wildcard tests/requirements*.in)); do \
	  $(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --upgrade --generate-hashes \
	    --no-emit-index-url --custom-compile-command 'make lock' --output-file $$each.lock $$each.in; \
	done

clean: ## remove build/ and dist/
	rm -rf build dist

clean-cache: ## remove the built machines and the virtual environments
	@for name in $$($(MACHINES) list); do $(MACHINES) stop $$name; done
	rm -rf $(CACHE)
