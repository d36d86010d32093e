"""What each stream makes of each probe's records: docs/streams.md as a table."""

from __future__ import annotations

import pytest

from fserr_bpf.group.streams import RULES, Report, kind_of, names_place, reason_of
from fserr_bpf.model.stream import Stream
from fserr_bpf.probes.table import ENDS, UNSENT
from fserr_bpf.uapi.proposed import ErrorKind
from fserr_bpf.uapi.record import Flag, Probe, Record
from tests.ring_values import BTRFS, EXT4, F2FS, XFS, record

PLAIN, INODE, HALF_BUILT = Flag(0), Flag.HAS_INODE, Flag.HAS_INODE | Flag.IGET
SICK, ASKED = Flag.SICK_CORE, Flag.REQUESTED
SUPER, FILE, END = "superblock", "inode", "superblock, whose end it is"
DEVICE = "superblock, counted for a device"
MERGES_AS = {END: "end", DEVICE: "device"}  # among themselves only
DEAF = "the stream has no rule for this probe"
SILENT = "the rule makes nothing of this record"
Outcome = str | tuple[int, str]

# probe, flags, magic, ino, error of the record; then what native, fserror, proposed make of it
Row = tuple[Probe, Flag, int, int, int, Outcome, Outcome, Outcome]
TABLE: list[Row] = [
    # ext4 up to 6.19: native keeps the sign; 0 is EFSCORRUPTED everywhere
    (Probe.EXT4_ERROR, PLAIN, EXT4, 0, 117, (117, SUPER), (117, SUPER), (117, SUPER)),
    (Probe.EXT4_ERROR, PLAIN, EXT4, 0, -5, (-5, SUPER), (5, SUPER), (5, SUPER)),
    (Probe.EXT4_ERROR, PLAIN, EXT4, 0, 0, (117, SUPER), (117, SUPER), (117, SUPER)),
    (Probe.EXT4_ERROR_INODE, INODE, EXT4, 12, 117, (117, FILE), (117, FILE), (117, FILE)),
    (Probe.EXT4_ERROR_INODE, INODE, EXT4, 12, -74, (-74, FILE), (74, FILE), (74, FILE)),
    (Probe.EXT4_ERROR_INODE, INODE, EXT4, 12, 0, (117, FILE), (117, FILE), (117, FILE)),
    (Probe.EXT4_ERROR_INODE, HALF_BUILT, EXT4, 12, -5, (-5, FILE), (5, FILE), (5, FILE)),
    (Probe.EXT4_ERROR_FILE, INODE, EXT4, 12, 0, (117, FILE), (117, FILE), (117, FILE)),
    (Probe.EXT4_STD_ERROR, PLAIN, EXT4, 0, -30, (-30, SUPER), (30, SUPER), (30, SUPER)),
    (Probe.EXT4_STD_ERROR, PLAIN, EXT4, 0, 28, (28, SUPER), (28, SUPER), (28, SUPER)),
    # __ext4_abort(): 16 is EXT4_ERR_ESHUTDOWN of fs/ext4/ext4.h, not EBUSY
    (Probe.EXT4_ABORT, PLAIN, EXT4, 0, 16, (16, SUPER), (108, SUPER), (108, END)),
    (Probe.EXT4_ABORT, PLAIN, EXT4, 0, -5, (-5, SUPER), (5, SUPER), (5, SUPER)),
    (Probe.EXT4_ABORT, INODE, EXT4, 12, 30, (30, FILE), (30, SUPER), (30, SUPER)),
    (Probe.EXT4_ABORT, PLAIN, EXT4, 0, 0, (117, SUPER), (117, SUPER), (117, SUPER)),
    # remount,abort comes through __ext4_error() since 5.11
    (Probe.EXT4_ERROR, ASKED, EXT4, 0, 108, (108, SUPER), (108, SUPER), (108, END)),
    (Probe.EXT4_GROUP_LOCKED, PLAIN, EXT4, 0, 117, DEAF, DEAF, (117, SUPER)),
    *(
        (p, PLAIN, XFS, 0, -117, DEAF, DEAF, (117, SUPER))
        for p in sorted(UNSENT - {Probe.BTRFS_DEVICE})
    ),
    *((p, ASKED, XFS, 0, -108, DEAF, DEAF, (108, END)) for p in sorted(ENDS)),
    (Probe.BTRFS_DEVICE, PLAIN, BTRFS, 0, -74, DEAF, DEAF, (74, DEVICE)),
    (Probe.EXT4_SHUTDOWN, PLAIN, EXT4, 0, 108, DEAF, (108, SUPER), DEAF),
    (Probe.EXT4_SHUTDOWN, PLAIN, EXT4, 0, -108, DEAF, (108, SUPER), DEAF),
    # buffers of XFS: 7.x knows corruption only, and says 117 for EFSBADCRC too
    (Probe.XFS_BUF_VERIFIER, PLAIN, XFS, 0, -117, DEAF, (117, SUPER), (117, SUPER)),
    (Probe.XFS_BUF_VERIFIER, PLAIN, XFS, 0, -74, DEAF, (117, SUPER), (74, SUPER)),
    (Probe.XFS_BUF_VERIFIER, PLAIN, XFS, 0, -5, DEAF, SILENT, (5, SUPER)),
    (Probe.XFS_BUF_IOERROR, PLAIN, XFS, 0, -5, DEAF, SILENT, (5, SUPER)),
    (Probe.XFS_BUF_IOERROR, PLAIN, XFS, 0, -117, DEAF, (117, SUPER), (117, SUPER)),
    (Probe.XFS_BUF_IOERROR, PLAIN, XFS, 0, 74, DEAF, (117, SUPER), (74, SUPER)),
    (Probe.XFS_BUF_TRACE, PLAIN, XFS, 0, -5, DEAF, SILENT, (5, SUPER)),
    (Probe.XFS_BUF_TRACE, PLAIN, XFS, 0, -74, DEAF, (117, SUPER), (74, SUPER)),
    # inodes of XFS: half-built ones are the superblock's in 7.x
    (Probe.XFS_INODE_VERIFIER, INODE, XFS, 131, -117, DEAF, (117, FILE), (117, FILE)),
    (Probe.XFS_INODE_VERIFIER, INODE, XFS, 131, -74, DEAF, (117, FILE), (74, FILE)),
    (Probe.XFS_INODE_VERIFIER, HALF_BUILT, XFS, 131, -117, DEAF, (117, SUPER), (117, FILE)),
    (Probe.XFS_INODE_VERIFIER, PLAIN, XFS, 0, -117, DEAF, (117, SUPER), (117, SUPER)),
    (Probe.XFS_INODE_SICK, INODE, XFS, 131, -117, DEAF, (117, FILE), SILENT),
    (Probe.XFS_INODE_SICK, HALF_BUILT, XFS, 131, -117, DEAF, (117, SUPER), SILENT),
    (Probe.XFS_INODE_SICK, Flag.IGET, XFS, 131, 117, DEAF, (117, SUPER), SILENT),
    (Probe.XFS_INODE_SICK, INODE | SICK, XFS, 131, -117, DEAF, (117, FILE), (117, FILE)),
    (Probe.XFS_INODE_SICK, HALF_BUILT | SICK, XFS, 131, 117, DEAF, (117, SUPER), (117, FILE)),
    (Probe.XFS_GROUP_SICK, PLAIN, XFS, 0, 117, DEAF, (117, SUPER), DEAF),
    (Probe.XFS_FS_SICK, PLAIN, XFS, 0, -117, DEAF, (117, SUPER), DEAF),
    (Probe.XFS_SHUTDOWN, PLAIN, XFS, 0, 108, DEAF, (108, SUPER), DEAF),
    # writeback: 7.x has that of iomap, which here only XFS uses; btrfs metadata has no file
    (Probe.WRITEBACK, INODE, XFS, 131, -5, DEAF, (5, FILE), (5, FILE)),
    (Probe.WRITEBACK, INODE, EXT4, 12, -5, DEAF, SILENT, (5, FILE)),
    (Probe.WRITEBACK, INODE, F2FS, 4, -28, DEAF, SILENT, (28, FILE)),
    (Probe.WRITEBACK, INODE, EXT4, 1, -5, DEAF, SILENT, (5, FILE)),
    (Probe.WRITEBACK, PLAIN, EXT4, 0, -5, DEAF, SILENT, (5, SUPER)),
    (Probe.WRITEBACK, INODE, BTRFS, 257, -5, DEAF, SILENT, (5, FILE)),
    (Probe.WRITEBACK, INODE, BTRFS, 1, -5, DEAF, SILENT, (5, SUPER)),
    (Probe.BTRFS_ERROR, PLAIN, BTRFS, 0, -30, DEAF, DEAF, (30, SUPER)),
    # 7.x reports positive numbers itself
    (Probe.FSERROR, INODE, XFS, 131, 117, (117, FILE), (117, FILE), DEAF),
    (Probe.FSERROR, PLAIN, EXT4, 0, -5, (5, SUPER), (5, SUPER), DEAF),
    # hints and ends of marks are errors in no stream
    (Probe.EXT4_TRACE, PLAIN, EXT4, 0, 0, DEAF, DEAF, DEAF),
    (Probe.CANARY, PLAIN, 0, 0, 0, DEAF, DEAF, DEAF),
    (Probe.SB_DELETE, PLAIN, EXT4, 0, 0, DEAF, DEAF, DEAF),
]
CELLS = [
    pytest.param(
        record(probe, flags=flags, magic=magic, ino=ino, error=error),
        stream,
        outcome,
        id=f"{stream}-{probe.name}-{number}",
    )
    for number, (probe, flags, magic, ino, error, *outcomes) in enumerate(TABLE)
    for stream, outcome in zip(Stream, outcomes, strict=True)
]


@pytest.mark.parametrize(("seen", "stream", "outcome"), CELLS)
def test_what_a_stream_makes_of_a_record(seen: Record, stream: Stream, outcome: Outcome) -> None:
    rule = RULES[stream].get(seen.probe)
    if outcome is DEAF:
        assert rule is None
        return
    assert rule is not None
    report = rule(seen)
    if isinstance(outcome, str):
        assert (outcome, report) == (SILENT, None)
    else:
        error, form = outcome
        assert report == Report(error, form == FILE, MERGES_AS.get(form, ""))


def test_every_probe_is_in_the_table() -> None:
    assert {row[0] for row in TABLE} == set(Probe)
    assert list(Stream) == [Stream.NATIVE, Stream.FSERROR, Stream.PROPOSED]


@pytest.mark.parametrize("probe", list(Probe))
def test_a_shutdown_is_one_whoever_reports_it(probe: Probe) -> None:
    assert [kind_of(record(probe), e) for e in (108, -108)] == [ErrorKind.SHUTDOWN] * 2


@pytest.mark.parametrize(
    ("flags", "kind", "words"),
    [
        (Flag(0), ErrorKind.SHUTDOWN, ""),
        (Flag.REQUESTED, ErrorKind.SHUTDOWN_REQUESTED, "requested"),
        (Flag.METADATA_IO, ErrorKind.SHUTDOWN_METADATA_IO, "metadata I/O error"),
        (Flag.LOG_IO, ErrorKind.SHUTDOWN_LOG_IO, "log I/O error"),
        (Flag.CORRUPTION, ErrorKind.SHUTDOWN_CORRUPTION, "corruption"),
        (Flag.DEVICE_REMOVED, ErrorKind.SHUTDOWN_DEVICE_REMOVED, "device removed"),
        # XFS_IOC_GOINGDOWN without a flush of the log
        (Flag.REQUESTED | Flag.LOG_IO, ErrorKind.SHUTDOWN_REQUESTED, "requested"),
    ],
)
def test_the_reason_of_an_end(flags: Flag, kind: ErrorKind, words: str) -> None:
    seen = record(Probe.XFS_END, flags=flags)
    assert (kind_of(seen, 108), reason_of(seen, 108)) == (kind, words)
    assert (kind_of(seen, 5), reason_of(seen, 5)) == (ErrorKind.METADATA, "")


@pytest.mark.parametrize("probe", list(Probe))
def test_kind(probe: Probe) -> None:
    kinds = {Probe.WRITEBACK: ErrorKind.WRITEBACK, Probe.EXT4_STD_ERROR: ErrorKind.JOURNAL}
    for error in (5, -5, 117):
        assert kind_of(record(probe), error) is kinds.get(probe, ErrorKind.METADATA)


NAMING = {
    *(Probe.EXT4_ERROR, Probe.EXT4_ERROR_INODE, Probe.EXT4_ERROR_FILE, Probe.EXT4_STD_ERROR),
    *(Probe.EXT4_ABORT, Probe.XFS_BUF_IOERROR, Probe.XFS_BUF_VERIFIER, Probe.XFS_BUF_TRACE),
    *(Probe.XFS_INODE_VERIFIER, Probe.XFS_CORRUPTION, Probe.XFS_BUF_CORRUPT),
    *(Probe.EXT4_GROUP_LOCKED, Probe.EXT4_END),
}


@pytest.mark.parametrize("probe", list(Probe))
def test_a_place_in_the_source_is_one_that_the_file_system_names(probe: Probe) -> None:
    assert names_place(record(probe, function=b"ext4_iget")) is (probe in NAMING)
    assert not names_place(record(probe, function=b""))
