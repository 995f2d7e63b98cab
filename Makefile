# Everything works from a fresh clone on a Debian 12 machine as root: what is missing is installed, and said.

SHELL = /bin/bash
.SHELLFLAGS = -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL = help

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/dockerd-guard
VENV := $(CACHE)/venv
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' dockerd_guard/__init__.py)
DEB := dist/dockerd-guard_$(VERSION)_all.deb
RELEASE ?= bookworm
SYSTEMDLINT := $(CACHE)/systemdlint
JOBS ?= 3

PACKAGED := setup.cfg pyproject.toml LICENSE config.example.yaml $(wildcard README.md docs) dockerd_guard packaging
SOURCES := $(shell find $(PACKAGED) -name __pycache__ -prune -o -type f -print)
MACHINES := python3 -m tests.machines

.PHONY: help demo test check lint unit fuzz system-test slow-test differential mutation bench soak machine docs deb lintian piuparts venv clean clean-cache

help: ## say what there is
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: ## live through an exposure and its correction on a throwaway machine
	@$(MACHINES) prepare
	@$(MAKE) --silent deb
	@python3 -m tests.demo $(DEB)

test: check ## everything: check, then the system tests on all three Debian releases
	@$(MACHINES) build
	@$(MAKE) --silent lintian
	# A race fails one run in hundreds. It must not hide, and it must not stop everybody: tried once more, told in full.
	$(VENV)/bin/python -m pytest tests/system --numprocesses=$(JOBS) --durations=10 --reruns=1

check: lint unit ## lint, types and unit tests: minutes, no machines
	@echo "all checks passed"

lint: venv ## ruff and mypy
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy dockerd_guard tests packaging/*.py

unit: venv ## unit tests only
	@if [ $$(id -u) = 0 ] && command -v apt-get > /dev/null; then $(MACHINES) prepare-packages zsh fish man-db; fi
	$(VENV)/bin/python -m pytest tests/unit -q --cov=dockerd_guard --cov-report=
	# What talks to systemd and dockerd is covered by the system tests, which are not counted here.
	$(VENV)/bin/coverage report --skip-covered --sort=cover

fuzz: venv ## fuzz every reader, guided by coverage: SECONDS=600 for each, TARGETS="unit host" (else all)
	@$(VENV)/bin/python -c 'import atheris' 2>/dev/null || $(VENV)/bin/python -m pip install --quiet 'atheris>=3'
	$(VENV)/bin/python -m tests.fuzz run --seconds $(or $(SECONDS),600) $(TARGETS)

system-test: venv deb ## one system test: TEST=tests/system/test_x.py::test_y[bookworm], KEEP=1 leaves its machine running
	$(VENV)/bin/python -m pytest '$(or $(TEST),tests/system)' $(if $(KEEP),--keep)

differential: venv ## judge generated trees by real systemd and dockerd: N=5000 for each release, SEED=1 (else a new one)
	@$(MACHINES) build
	$(VENV)/bin/python -m tests.differential run --count $(or $(N),1000) $(if $(SEED),--seed $(SEED))

slow-test: venv deb ## what takes too long for each day: wars over files, every mutation, growth with size (TEST=tests/system/slow_war.py)
	$(VENV)/bin/python -m pytest $(or $(TEST),tests/system/slow_*.py tests/fuzz/growth.py)

mutation: venv ## change each operator, branch and constant of the decisions; unit tests must notice: MODULES="decide gate"
	$(VENV)/bin/python -m tests.mutation $(MODULES)

docs: venv deb ## print into README.md and docs/ what the program prints on a machine
	@$(MACHINES) prepare
	$(VENV)/bin/python -m tests.docs $(DEB)

bench: venv deb ## how fast, how light, beside its peers: RELEASE=bookworm, QUICK=1, ROWS="cold event", AGAINST=FILE (an hour, on a quiet host)
	@[ -d $(SYSTEMDLINT) ] || $(VENV)/bin/python -m pip install --quiet --target $(SYSTEMDLINT) systemdlint==1.4.0
	$(VENV)/bin/python -m tests.bench $(DEB) $(ROWS) --release $(RELEASE) --systemdlint $(SYSTEMDLINT) \
	  $(if $(QUICK),--quick) $(if $(AGAINST),--against $(AGAINST))

soak: venv deb ## random drift for HOURS=1 while agent and dockerd are restarted: RELEASE=bookworm, SEED=1 (else a new one)
	$(VENV)/bin/python -m tests.system.soak $(DEB) --release $(RELEASE) --hours $(or $(HOURS),1) \
	  $(if $(SEED),--seed $(SEED)) --curve dist/soak-$(RELEASE).csv

machine: ## a shell in a throwaway machine with the current .deb: RELEASE=trixie; or in a kept one: NAME=kept-trixie
	@$(if $(NAME),,$(MAKE) --silent deb)
	@$(MACHINES) shell $(or $(NAME),$(RELEASE) --package $(DEB))

deb: $(DEB) ## dist/dockerd-guard_VERSION_all.deb

$(DEB): $(SOURCES)
	@$(MACHINES) prepare-packages build-essential debhelper dh-python pybuild-plugin-pyproject python3-all python3-setuptools
	@packaging/build $(DEB) $(PACKAGED)

lintian: deb ## what Debian has to say about the package: nothing, not even hints
	@$(MACHINES) prepare-packages lintian
	# Its own --fail-on counts what is overridden too.
	@said=$$(lintian --allow-root --display-info --pedantic $(DEB) 2>&1) && test -z "$$said" || { echo "$$said"; exit 1; }

piuparts: deb ## install, upgrade, remove and purge on each release, watched by piuparts for what stays behind (a minute each)
	@$(MACHINES) prepare-packages piuparts dpkg-dev
	@python3 -m tests.older $(DEB) build/older
	# debconf leaves its tmp.ci behind at any installation.
	for release in bookworm trixie sid; do \
	  root=$$(python3 -c "from tests.machines.image import base; print(base('$$release'))"); \
	  piuparts --distribution=$$release --existing-chroot=$$root --ignore-regex='/var/cache/debconf/tmp.ci/?' \
	    --bindmount=$(CURDIR)/build/older --extra-repo='deb [trusted=yes] file://$(CURDIR)/build/older ./' \
	    $(DEB) > build/piuparts-$$release.log || { tail --lines=40 build/piuparts-$$release.log; exit 1; }; \
	  grep --quiet 'Unpacking dockerd-guard (.*) over (0~before-' build/piuparts-$$release.log; \
	  echo "$$release: $$(tail --lines=2 build/piuparts-$$release.log | head --lines=1)"; \
	done

venv:
	@if ! cmp --quiet tests/requirements.txt $(VENV)/requirements.txt; then \
	  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'; \
	  python3 -c 'import ensurepip' 2>/dev/null || $(MACHINES) prepare-packages python3-venv; \
	  echo "Installing what lint and tests need into $(VENV)."; \
	  python3 -m venv --clear $(VENV); \
	  $(VENV)/bin/python -m pip install --quiet --requirement tests/requirements.txt; \
	  cp tests/requirements.txt $(VENV)/requirements.txt; \
	fi

clean: ## remove what was built in the tree
	rm -rf build dist

clean-cache: ## remove built machines and the tools' venv
	@for name in $$($(MACHINES) list); do $(MACHINES) stop $$name; done
	rm -rf $(CACHE)
