"""The kernel's log beside our events, with messages that kernels wrote."""

from __future__ import annotations

from typing import Any

import pytest

from fserr_bpf.model.stream import Stream
from fserr_bpf_compare.report import imagetable, terminal
from fserr_bpf_compare.verdict.cells import Cell, Outcome, Read, Witness
from fserr_bpf_compare.verdict.judge import EXIT_DIFFERENT, EXIT_SAME, judge, verdict
from fserr_bpf_compare.verdict.unheard import Unheard, errors_of, function_of, together, unheard
from tests.unit.test_fanotify_codec import SB_ERROR

LOOKUP = "EXT4-fs error (device loop1): ext4_lookup:1857: inode #12: comm x: deleted inode"
GROUP = "EXT4-fs error (device loop1): ext4_mb_generate_buddy:1217: group 0, block bitmap"
AGF = "XFS (loop1): Metadata corruption detected at xfs_agf_verify+0xa1/0x190 [xfs], xfs_agf block"


@pytest.mark.parametrize(
    ("message", "function"),
    [
        (LOOKUP, "ext4_lookup"),
        ("EXT4-fs error (device loop1) in ext4_evict_inode:250: Corrupt filesystem",
         "ext4_evict_inode"),
        (AGF, "xfs_agf_verify"),
        ("XFS (loop1): Metadata CRC error detected at xfs_sb_read_verify+0x1/0x2, xfs_sb block 0",
         "xfs_sb_read_verify"),
        ("XFS (loop1): Internal error xfs_trans_cancel at line 983 of file fs/xfs/xfs_trans.c. "
         " Caller xfs_create+0x3a/0x6c [xfs]", "xfs_create"),
        ("XFS (loop1): Corruption of in-memory data (0x8) detected at xfs_defer_finish+0x1/0x2 "
         "[xfs] (fs/xfs/libxfs/xfs_defer.c:580).  Shutting down filesystem.", "xfs_defer_finish"),
        ("BTRFS: error (device loop1) in btrfs_replay_log:2300: errno=-5 IO failure",
         "btrfs_replay_log"),
        ("FAT-fs (loop1): error, fat_get_cluster: invalid cluster chain (i_pos 0)",
         "fat_get_cluster"),
        ("EXT4-fs (loop1): ext4_remount: Checksum for group 0 failed (1!=2)", "ext4_remount"),
        ("XFS (loop1): Metadata corruption detected at xfs_dinode_verify.part.0+0x547/0xa80 [xfs]",
         "xfs_dinode_verify"),
        ("loop1: writeback error on inode 76620, offset 0, sector 48064", "iomap_finish_ioend"),
        ("XFS (loop1): xfs_inactive_ifree: xfs_ifree returned error -117", "xfs_inactive_ifree"),
        ("EXT4-fs (loop1): journal bmap failed: block 7 ret 0\\x0a",
         "EXT4-fs (DEVICE): journal bmap failed: block N ret N"),
        ("BTRFS critical (device loop1): corrupt leaf: root=5 block=30408704 slot=3",
         "BTRFS critical (device DEVICE): corrupt leaf: root=N block=N slot=N"),
    ],
)  # fmt: skip
def test_function_that_a_message_names(message: str, function: str) -> None:
    assert function_of(message, "loop1") == function


def test_errors_are_of_the_device_and_no_explanations() -> None:
    leveled = [
        (2, LOOKUP),
        (2, LOOKUP.replace("loop1", "loop12")),  # of another one
        (4, "EXT4-fs warning (device loop1): ext4_enable_quotas:7000: Failed"),
        (1, "XFS (loop1): Unmount and run xfs_repair"),
        (1, "XFS (loop1): First 128 bytes of corrupted metadata buffer:"),
        (1, "00000000: 58 41 47 46 00 00 00 01"),
        (1, 'XFS (loop1): metadata I/O error in "xfs_read_agf+0x1/0x2" at daddr 0x1 error 117'),
        (1, AGF),
    ]  # fmt: skip
    assert list(errors_of("loop1", leveled)) == [LOOKUP, AGF]


def test_each_event_stands_for_one_message_of_its_function() -> None:
    errors = [LOOKUP, GROUP, LOOKUP, GROUP, GROUP]
    assert unheard(errors, "loop1", {"ext4_lookup": 9, "other": 9}) == (
        Unheard("ext4_mb_generate_buddy", 3, GROUP),
    )
    assert unheard(errors, "loop1", {"ext4_lookup": 1, "ext4_mb_generate_buddy": 3}) == (
        Unheard("ext4_lookup", 1, LOOKUP),
    )
    assert unheard([], "loop1", {}) == ()


def test_what_xfs_read_ahead_and_again_is_one_error() -> None:
    other = AGF.replace("xfs_agf block", "another block")
    errors = [AGF, AGF, other, AGF]
    assert unheard(errors, "loop1", {"xfs_agf_verify": 2}) == ()
    assert unheard(errors, "loop1", {"xfs_agf_verify": 1}) == (Unheard("xfs_agf_verify", 1, AGF),)
    assert unheard(errors, "loop1", {"": 2}) == ()
    assert unheard(errors, "loop1", {}) == (Unheard("xfs_agf_verify", 4, AGF),)


def test_events_without_a_function_stand_for_any_message_once() -> None:
    errors = [LOOKUP, GROUP, LOOKUP]
    assert unheard(errors, "loop1", {"": 3}) == ()
    assert unheard(errors, "loop1", {"": 2}) == (Unheard("ext4_mb_generate_buddy", 1, GROUP),)


def test_images_are_put_together_by_function() -> None:
    one, two = Unheard("a", 1, "first"), Unheard("b", 2, "second")
    assert together([("x", [one, two]), ("y", [one._replace(lines=4, example="later")])]) == [
        (Unheard("a", 5, "first"), ["x", "y"]),
        (Unheard("b", 2, "second"), ["x"]),
    ]


def image_cell(stream: Stream = Stream.NATIVE, **fields: Any) -> Cell:
    blank = Cell("6.12", "6.12.117+deb13-amd64", "a.gz", str(stream), image="/x/a.gz", fstype="xfs")
    return blank._replace(**fields)


UNHEARD = (Unheard("xfs_agf_verify", 2, AGF),)


def test_log_decides_only_where_there_is_no_group_of_the_kernel() -> None:
    same = image_cell(real=(Read(0, SB_ERROR),), emulated=(Read(0, SB_ERROR),), unheard=UNHEARD)
    assert judge(same, ()).outcome is Outcome.SAME
    alone = image_cell(Stream.PROPOSED, witness=Witness.LOG, heard=(("x", 1),))
    judged = judge(alone, ())
    assert (judged.outcome, judged.reached) == (Outcome.SAME, None)
    assert verdict([judged]) == EXIT_SAME
    judged = judge(alone._replace(unheard=UNHEARD), ())
    assert judged.outcome is Outcome.DIFFERENT
    (difference,) = judged.differences
    assert difference == (-1, "log", f"2 x xfs_agf_verify: {AGF}", "nothing")
    assert verdict([judged]) == EXIT_DIFFERENT


def test_trouble_and_refusal_come_first() -> None:
    for witness in Witness:
        cell = image_cell(witness=witness, unheard=UNHEARD)
        assert judge(cell._replace(trouble="hangs"), ()).outcome is Outcome.BROKEN
        assert judge(cell._replace(not_run="no"), ()).outcome is Outcome.NOT_RUN


def test_cell_of_an_image_comes_back_from_json() -> None:
    cell = image_cell(heard=(("a", 1), ("b", 2)), unheard=UNHEARD, mounting=3, lost=True)
    assert Cell.from_json(cell.to_json()) == cell


def test_terminal_counts_by_file_system_and_lists_functions() -> None:
    silent = image_cell()
    loud = silent._replace(
        real=(Read(0, SB_ERROR),),
        emulated=(Read(0, SB_ERROR),),
        heard=(("x", 1),),
        unheard=UNHEARD,
    )
    cells = [
        silent,
        loud._replace(scenario="b", mounting=2),
        loud._replace(scenario="c", emulated=()),
        silent._replace(scenario="d", fstype="ext4", not_run="the kernel does not mount it: no"),
    ]
    assert imagetable.table([judge(cell, ()) for cell in cells]) == [
        "kernel  images  of    same  different  broken  not run  with events  in proposed",
        "6.12    3       xfs   2     1          0       0        2            2",
        "6.12    1       ext4  0     0          0       1        0            0",
        "",
        "errors in the log of 6.12 without an event of the stream proposed:",
        "  4 x xfs_agf_verify: b, c",
        "  2 from before the mount was complete: nothing can be marked then",
        "",
        "DIFFERENT: event 0 event: EFSCORRUPTED 117 on "
        "88888888:88888888, superblock, x1, pid 3859 / nothing: c on 6.12",
        "not run: the kernel does not mount it: no: d on 6.12",
        "4 cells: 2 same, 1 different, 0 broken, 1 not run",
    ]


def test_event_of_an_image_is_seen_on_either_witness() -> None:
    assert not terminal.has_event(image_cell())
    assert terminal.has_event(image_cell(real=(Read(0, b"x"),)))
    alone = image_cell(witness=Witness.LOG)
    assert not terminal.has_event(alone._replace(heard=(("a", 0),)))
    assert terminal.has_event(alone._replace(heard=(("a", 1),)))
