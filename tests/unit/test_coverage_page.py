"""docs/coverage.md is the tables of the probes."""

from __future__ import annotations

from pathlib import Path

import pytest

from fserr_bpf.model.stream import Stream
from fserr_bpf.probes.coverage import SEEN, UNSEEN, not_seen
from fserr_bpf.probes.table import PROBES, wanted
from fserr_bpf.uapi.record import Probe
from fserr_bpf_compare.report.coveragepage import COLUMNS, render, sees

ROOT = Path(__file__).parents[2]
# no error, or part of what another names
KINDS = ("metadata", "the end", "failed writes", "failed reads")
HELPERS = {Probe.SB_DELETE, Probe.CANARY, Probe.EXT4_TRACE}


def test_the_page_is_what_the_tables_say() -> None:
    assert (ROOT / "docs/coverage.md").read_text() == render()


def test_every_probe_of_the_stream_has_its_row() -> None:
    listed = {probe for row in SEEN for probe in row.probes}
    used = {p for column in COLUMNS for p in wanted(Stream.PROPOSED, column.kernel)}
    assert listed == used - HELPERS


def test_every_row_is_seen_somewhere() -> None:
    for row in SEEN:
        assert any(sees(probe, column) for probe in row.probes for column in COLUMNS), row


def test_every_file_system_of_a_probe_is_one_of_the_table() -> None:
    named = {spec.fstypes[0] for spec in PROBES if spec.fstypes}
    assert named <= {row.fstype for row in SEEN}
    assert all(row.why for row in UNSEEN)


XFS = {Probe.XFS_BUF_TRACE, Probe.XFS_END, Probe.WRITEBACK}


@pytest.mark.parametrize(
    ("driver", "stream", "present", "missing"),
    [
        ("xfs", Stream.PROPOSED, XFS, ("failed reads",)),
        ("zonefs", Stream.PROPOSED, XFS, ("metadata", "the end", "failed reads")),
        ("vfat", Stream.PROPOSED, {Probe.FAT_ERROR}, ("the end", "failed writes", "failed reads")),
        # up to 6.19 only the writes of XFS are of that stream
        ("xfs", Stream.FSERROR, XFS - {Probe.XFS_END}, ("the end", "failed reads")),
        ("ext4", Stream.FSERROR, {Probe.EXT4_ERROR, Probe.WRITEBACK}, KINDS[1:]),
        ("xfs", Stream.NATIVE, {Probe.EXT4_ERROR}, KINDS),
        # 7.x reports by itself
        ("xfs", Stream.FSERROR, {Probe.FSERROR}, ()),
        ("zonefs", Stream.FSERROR, {Probe.FSERROR}, KINDS[:2]),
        ("btrfs", Stream.FSERROR, {Probe.FSERROR}, ("metadata", *KINDS[2:])),
        ("vfat", Stream.FSERROR, {Probe.FSERROR}, KINDS),
    ],
)
def test_what_is_not_seen_of_a_type(
    driver: str, stream: Stream, present: set[Probe], missing: tuple[str, ...]
) -> None:
    assert not_seen(driver, stream, present) == missing
