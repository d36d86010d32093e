"""What all tests share: how thoroughly hypothesis looks, and how tests run side by side."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from itertools import chain, zip_longest

import pytest

if "FSERR_LAB" not in os.environ:  # an emulated machine takes seconds to import it
    from hypothesis import settings

    # no deadline: a busy machine is not a fault
    settings.register_profile("ci", deadline=None)
    settings.register_profile("dev", deadline=None, max_examples=25)
    settings.load_profile("ci")

# each test boots a machine or more, the longest first: they keep the processors busy, while
# most other live tests wait
BOOT = ("test_in_lab.py", "test_compare.py", "test_demo.py", "test_lab.py", "test_kernel_patch.py")
# no fixture of theirs is worth to be shared
LONG = ("test_exec_fuzz.py", "test_exec_process.py", "test_run_cli.py", "test_top.py")
_CLONE_NEWNS = 0x00020000  # include/uapi/linux/sched.h


def pytest_configure(config: pytest.Config) -> None:
    """Signals that children can be sent, and a mount namespace for each worker of pytest-xdist.

    A shell starts what it runs in the background with SIGINT ignored, and children inherit that.

    A test that makes a namespace copies all mounts into it; those of another worker could not be
    unmounted there until it ends.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(config, "workerinput") and os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(_CLONE_NEWNS):
            raise OSError(ctypes.get_errno(), "unshare")


@pytest.hookimpl(tryfirst=True)  # before xdist looks at the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With pytest-xdist: which tests stay together, and in which order they are given out."""
    if not getattr(config.option, "loadgroup", False):  # which is set in workers only
        return
    boot: list[pytest.Item] = []
    live: list[pytest.Item] = []
    pure: list[pytest.Item] = []
    for item in items:
        name = item.path.name
        if item.path.parent.name != "live":
            pure.append(item)
        elif name in BOOT:
            boot.append(item)
        else:
            live.append(item)
            if name not in LONG:
                item.add_marker(pytest.mark.xdist_group(name))
    boot.sort(key=lambda item: BOOT.index(item.path.name))
    items[:] = [*boot[:2], *_interleaved(live, boot[2:]), *pure]


def _interleaved(many: list[pytest.Item], few: list[pytest.Item]) -> Iterator[pytest.Item]:
    """All of both in order, ``few`` spread over the groups of ``many``."""
    groups: dict[object, list[pytest.Item]] = {}
    for item in many:
        mark = item.get_closest_marker("xdist_group")
        groups.setdefault(mark.args[0] if mark else item, []).append(item)
    step = max(1, len(groups) // (len(few) + 1))
    piles = list(groups.values())
    between = [piles[at : at + step] for at in range(0, len(piles), step)]
    for pile, one in zip_longest(between, few):
        yield from chain.from_iterable(pile or ())
        if one is not None:
            yield one
