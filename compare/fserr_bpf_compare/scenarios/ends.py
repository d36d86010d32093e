"""File systems that end: what the kernel itself sends of it, which is little.

Ends that are faults of the tables too are scenarios already.
"""

from __future__ import annotations

import errno

from fserr_bpf_compare.faults.ends import ENDS, End
from fserr_bpf_compare.faults.fault import EFSCORRUPTED, Expected
from fserr_bpf_compare.scenarios.scenario import (
    Expectation,
    Fixture,
    Need,
    Scenario,
    always,
    by_stream,
)

_END = Expected(errno.ESHUTDOWN, "sb")
_CORRUPT = Expected(EFSCORRUPTED, "sb")
_BY_NAME = {end.name: end for end in ENDS}


def _scenario(name: str, expected: Expectation, *needs: Need) -> Scenario:
    end = _BY_NAME[name]

    def run(fixture: Fixture) -> None:
        fs = fixture.scratch(
            end.fstype, mkfs_options=end.mkfs_options, mount_options=end.mount_options
        )
        end.damage(fs)
        fixture.watch(fs)
        fixture.record(end.cause(fs))

    return Scenario(
        name=name,
        area=_area(end),
        summary=end.summary,
        run=run,
        expected=expected,
        evidence=end.log,
        needs=frozenset(needs),
    )


def _area(end: End) -> str:
    return end.fstype if end.fstype in ("ext4", "xfs") else "generic"


EXT4 = (
    _scenario("ext4_end_no_journal", always(_CORRUPT)),
    _scenario("ext4_end_shutdown", by_stream(fserror=[_END])),
)
# 7.x: the end merges into the corruption that the same task has met before
XFS = (_scenario("xfs_end_unlinked", by_stream(fserror=[_CORRUPT]), Need.UNLINKED_LIST),)
OTHERS = (_scenario("f2fs_end_shutdown", by_stream(fserror=[_END]), Need.F2FS),)
