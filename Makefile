# The two commands are `make run` and `make test`; both install what they need.
# Debian 12 or 13, as root.

VENV := .venv
BIN := $(VENV)/bin
# Debian's own Python: the only one that sees Debian's bcc
PYTHON := /usr/bin/python3

RUN_PACKAGES := python3-bpfcc python3-venv e2fsprogs xfsprogs kmod
# a host without kprobes runs the main job in a virtual machine
LAB_PACKAGES := qemu-system-x86 busybox-static zstd
COMPARE_PACKAGES := btrfs-progs f2fs-tools dosfstools dmsetup
TEST_PACKAGES := gcc libc6-dev chromium chromium-driver tmux elfutils patch perl xz-utils postgresql systemd prometheus \
	exfatprogs nilfs-tools jfsutils ocfs2-tools
# public programs that use fanotify
CLIENT_PACKAGES := inotify-tools fatrace stress-ng
DEB_PACKAGES := debhelper dh-python dpkg-dev lintian pandoc python3-all python3-msgpack python3-shtab
KPROBES := $(wildcard /sys/bus/event_source/devices/kprobe/type)

# make compare ARGS="--kernel 6.12 --scenario 'xfs_*'" chooses
DEFAULT_MATRIX := --kernel here 5.10 6.1 6.12 6.18 7.2 7 --report build/compare
REPORTS ?= build/compare/report.json
# one more than processors: tests also wait
WORKERS := $(shell echo $$(($$(nproc) + 1)))
PYTEST := $(BIN)/python -m pytest --dist loadgroup --no-loadscope-reorder

# make run ARGS="/srv" monitors a path of this host instead of the demonstration
ARGS ?=

.PHONY: help install run deb compare corpus matrix kernel check test test-vm test-clients coverage mutants lint bench clean

help:
	@echo 'make run              the main job on scratch file systems, beside a real fanotify group'
	@echo 'make run ARGS="/srv"  watch the file system of /srv on this host'
	@echo 'make compare          the kernels of the lab beside our stream, with a report'
	@echo 'make corpus           damaged images of ext4 and XFS, played on 6.12; ARGS="--kernel 7"'
	@echo 'make matrix           docs/matrix.md from the report of the last make compare'
	@echo 'make kernel           the patched kernel of kernel-patch/, for compare --kernel patched'
	@echo 'make deb              the Debian package, in build/deb'
	@echo 'make check            ruff, mypy and the tests that need neither root nor a kernel'
	@echo 'make test             all tests'
	@echo 'make test-vm          the live tests in every kernel of the lab; ARGS="--kernel 6.12"'
	@echo 'make test-clients     public fanotify programs, natively and under exec; LTP=DIRECTORY'
	@echo 'make coverage         lines and branches that the tests without a kernel cover'
	@echo 'make mutants          whether these tests notice small faults; ARGS=fserr_bpf.group.streams'
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

$(VENV)/mutated: $(VENV)/tested
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[mutants]'
	@touch $@

run: install
ifeq ($(strip $(ARGS)),)
	@scripts/apt-install $(if $(KPROBES),,$(LAB_PACKAGES))
	@$(BIN)/python -m fserr_bpf_compare.demo
else
	@$(BIN)/fserr-bpf run $(ARGS)
endif

compare: install $(VENV)/compared
	@scripts/apt-install $(LAB_PACKAGES) $(COMPARE_PACKAGES)
	@$(BIN)/fserr-bpf compare $(or $(strip $(ARGS)),$(DEFAULT_MATRIX))

corpus: install $(VENV)/compared
	@scripts/apt-install $(LAB_PACKAGES)
	@$(BIN)/python -m fserr_bpf_compare.corpus build/corpus
	@$(BIN)/fserr-bpf compare --images build/corpus \
		$(or $(strip $(ARGS)),--kernel 6.12 --report build/corpus-report)

# after make compare: its report becomes a document; REPORTS="build/a/report.json ..." for more
matrix: $(VENV)/installed
	@$(BIN)/python -m fserr_bpf_compare.report.matrixpage $(REPORTS) docs/matrix.md

deb:
	@scripts/apt-install $(DEB_PACKAGES)
	@scripts/make-deb

kernel: install
	@scripts/apt-install $(shell cat kernel-patch/packages)
	@$(BIN)/python kernel-patch/build

test: install $(VENV)/tested lint
	@scripts/apt-install $(LAB_PACKAGES) $(COMPARE_PACKAGES) $(CLIENT_PACKAGES) $(TEST_PACKAGES)
	$(PYTEST) -n $(WORKERS)

check: lint
	$(PYTEST) -n $$(nproc) --hypothesis-profile dev tests/unit tests/property

test-vm: install $(VENV)/tested
	@scripts/apt-install $(LAB_PACKAGES) $(COMPARE_PACKAGES) $(TEST_PACKAGES)
	@$(BIN)/python -m fserr_bpf_compare.machines.livetests $(ARGS)

# LTP is a tree of the Linux Test Project whose fanotify tests were built
test-clients: install $(VENV)/tested
	@scripts/apt-install $(CLIENT_PACKAGES)
	@$(BIN)/python -m tests.publicclients $(if $(LTP),--ltp $(LTP))

coverage: $(VENV)/tested
	$(BIN)/coverage run -m pytest tests/unit tests/property
	@$(BIN)/python -m tests.coverage_floor

mutants: $(VENV)/mutated
	@$(BIN)/python -m tests.mutants $(ARGS)

lint: $(VENV)/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd kernel-patch && MYPYPATH=..:../compare ../$(BIN)/mypy --config-file ../pyproject.toml \
		--scripts-are-modules build check storm tree.py

bench: install $(VENV)/tested
	@scripts/apt-install gcc libc6-dev $(if $(KPROBES),,$(LAB_PACKAGES))
	@$(BIN)/python -m fserr_bpf_compare.bench.bench

clean:
	rm -rf $(VENV) build mutants *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
