# The two commands are `make run` and `make test`; both install what they need.
# Debian 12 or 13, as root.

VENV := .venv
BIN := $(VENV)/bin
# Debian's own Python: the only one that sees Debian's bcc
PYTHON := /usr/bin/python3

RUN_PACKAGES := python3-bpfcc python3-venv e2fsprogs xfsprogs kmod
# a host without kprobes runs the main job in a virtual machine
LAB_PACKAGES := qemu-system-x86 busybox-static zstd
COMPARE_PACKAGES := btrfs-progs dmsetup
TEST_PACKAGES := gcc libc6-dev chromium chromium-driver tmux elfutils patch perl xz-utils postgresql
KPROBES := $(wildcard /sys/bus/event_source/devices/kprobe/type)

# make compare ARGS="--kernel 6.12 --scenario 'xfs_*'" chooses
DEFAULT_MATRIX := --kernel here 5.10 6.1 6.12 6.18 7.2 7 --report build/compare
# make run ARGS="/srv" monitors a path of this host instead of the demonstration
ARGS ?=

.PHONY: help install run compare kernel test test-vm lint bench clean

help:
	@echo 'make run              the main job on scratch file systems, beside a real fanotify group'
	@echo 'make run ARGS="/srv"  watch the file system of /srv on this host'
	@echo 'make compare          the kernels of the lab beside our stream, with a report'
	@echo 'make kernel           the patched kernel of kernel-patch/, for compare --kernel patched'
	@echo 'make test             all tests'
	@echo 'make test-vm          the live tests in every kernel of the lab; ARGS="--kernel 6.12"'
	@echo 'make bench            the numbers'
	@echo 'make lint             ruff and mypy'

install: $(VENV)/installed
	@scripts/apt-install $(RUN_PACKAGES)
	@scripts/link-command $(CURDIR)/$(BIN)/fserr-bpf

$(VENV)/installed: pyproject.toml
	@scripts/apt-install $(RUN_PACKAGES)
	$(PYTHON) -m venv --system-site-packages $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/compared: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[compare]'
	@touch $@

$(VENV)/tested: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

run: install
ifeq ($(strip $(ARGS)),)
	@scripts/apt-install $(if $(KPROBES),,$(LAB_PACKAGES))
	@$(BIN)/python -m compare.demo
else
	@$(BIN)/fserr-bpf run $(ARGS)
endif

compare: install $(VENV)/compared
	@scripts/apt-install $(LAB_PACKAGES) $(COMPARE_PACKAGES)
	@$(BIN)/fserr-bpf compare $(or $(strip $(ARGS)),$(DEFAULT_MATRIX))

kernel: install
	@scripts/apt-install $(shell cat kernel-patch/packages)
	@$(BIN)/python kernel-patch/build

test: install $(VENV)/tested lint
	@scripts/apt-install $(LAB_PACKAGES) $(COMPARE_PACKAGES) $(TEST_PACKAGES)
	$(BIN)/python -m pytest

test-vm: install $(VENV)/tested
	@scripts/apt-install $(LAB_PACKAGES) $(COMPARE_PACKAGES) $(TEST_PACKAGES)
	@$(BIN)/python -m compare.matrix $(ARGS)

lint: $(VENV)/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd kernel-patch && MYPYPATH=.. ../$(BIN)/mypy --config-file ../pyproject.toml \
		--scripts-are-modules build check storm tree.py

bench: install $(VENV)/tested
	@scripts/apt-install gcc libc6-dev $(if $(KPROBES),,$(LAB_PACKAGES))
	@$(BIN)/python -m compare.bench

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
