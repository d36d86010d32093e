"""The four outcomes, the tolerances between them, and the exit status of a run."""

from __future__ import annotations

import struct

import pytest

from fserr_bpf_compare.verdict.cells import Cell, Judged, Level, Outcome, Read
from fserr_bpf_compare.verdict.judge import judge, verdict
from fserr_bpf_compare.verdict.tolerances import Tolerance

OVERFLOW = struct.pack("<IBBHQii", 24, 3, 0, 24, 0x4000, -1, 0)
PID = Tolerance("a-pid", "ext4_*", ("6.12.*", "6.18.*"), "pid", "chance", "0123456789ab")
COUNT = PID._replace(id="a-count", field="error_count")
LACKS = "no error 117 in sb form"


def event(error: int = 117, count: int = 1, pid: int = 258) -> bytes:
    """An error of the superblock, by hand from linux/fanotify.h."""
    return (
        struct.pack("<IBBHQii", 56, 3, 0, 24, 0x8000, -1, pid)
        + struct.pack("<BBHIIIi", 1, 0, 20, 0x11, 0x22, 0, 0xFF)
        + struct.pack("<BBHiI", 5, 0, 12, error, count)
    )


def cell(real: bytes = b"", emulated: bytes = b"", release: str = "6.12.9") -> Cell:
    stream = "native" if release.startswith(("5", "6")) else "fserror"
    return Cell(
        kernel="a kernel",
        release=release,
        scenario="ext4_trigger",
        stream=stream,
        real=(Read(0, real),),
        emulated=(Read(0, emulated),),
    )


def outcome(judged: Judged) -> tuple[Outcome, Level, Level | None]:
    return judged.outcome, judged.promised, judged.reached


def test_equal_bytes_are_the_same() -> None:
    judged = judge(cell(event(), event()), ())
    assert outcome(judged) == (Outcome.SAME, Level.L0, Level.L0)
    assert judged[4:] == ((), (), "")


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        ("5.10.0-46-amd64", (Outcome.DIFFERENT, Level.L0, Level.L2)),
        ("6.19.3", (Outcome.DIFFERENT, Level.L0, Level.L2)),
        ("7.0.13", (Outcome.SAME, Level.L2, Level.L2)),
    ],
)
def test_the_kernels_profile_says_how_much_must_agree(
    release: str, expected: tuple[Outcome, Level, Level]
) -> None:
    assert outcome(judge(cell(event(count=2), event() * 2, release), ())) == expected


def test_a_difference_is_shown_at_the_promised_level() -> None:
    judged = judge(cell(event(), event(pid=9)), ())
    assert outcome(judged) == (Outcome.DIFFERENT, Level.L0, Level.L2)
    assert [(d.event, *d[1:]) for d in judged.differences] == [(0, "pid", "258", "9")]
    assert judged.reason == "differs at L0"


@pytest.mark.parametrize("release", ["6.12.9", ""])
def test_what_was_not_compared_is_never_same_or_different(release: str) -> None:
    for other in (event(), b""):  # neither equal nor other bytes may hide it
        played = cell(event(), other, release)
        for judged, expected in (
            (judge(played._replace(trouble="died"), (PID,)), (Outcome.BROKEN, "died")),
            (judge(played._replace(not_run="no tool"), (PID,)), (Outcome.NOT_RUN, "no tool")),
        ):
            assert (judged.outcome, judged.reason) == expected
            assert (judged.promised, judged.reached, judged.differences) == (Level.L0, None, ())


def test_a_cell_that_nothing_is_promised_for_is_broken() -> None:
    judged = judge(cell(event(), event())._replace(stream="proposed"), ())
    assert outcome(judged) == (Outcome.BROKEN, Level.L0, None)
    assert judged.reason == "was run, although 6.12.9 promises nothing for the stream proposed"


def with_missing(played: Cell, *missing: str) -> Cell:
    return played._replace(missing=missing)


def test_two_silent_sides_prove_nothing() -> None:
    for release in ("6.12.9", "7.3.4"):
        silent = with_missing(cell(release=release), f"real: {LACKS}", f"emulated: {LACKS}")
        judged = judge(silent, ())
        assert judged.outcome is Outcome.BROKEN
        assert judged.reason == f"the trigger did not cause all expected errors: {LACKS}"


def test_an_error_that_nobody_should_send_is_broken_if_both_sent_it() -> None:
    words = "error 117 in sb form"
    judged = judge(with_missing(cell(event(), event()), f"real: {words}", f"emulated: {words}"), ())
    assert outcome(judged) == (Outcome.BROKEN, Level.L0, Level.L0)


@pytest.mark.parametrize("release", ["6.12.9", "7.3.4"])
def test_a_side_that_lacks_what_the_other_has_is_different(release: str) -> None:
    for sides, side in (((event(), b""), "emulated"), ((b"", event()), "real")):
        judged = judge(with_missing(cell(*sides, release), f"{side}: {LACKS}"), ())
        assert judged.outcome is Outcome.DIFFERENT
        assert judged.reason.endswith(f"; {side}: {LACKS}")


def test_at_l2_an_error_may_have_merged_away_on_one_side() -> None:
    merged, both = event(5, count=2), event(5) + event(117)
    for sides, side in (((merged, both), "real"), ((both, merged), "emulated")):
        judged = judge(with_missing(cell(*sides, "7.3.4"), f"{side}: {LACKS}"), ())
        assert outcome(judged) == (Outcome.SAME, Level.L2, Level.L2)


def test_a_tolerated_field_is_the_same_and_names_the_entry() -> None:
    judged = judge(cell(event() + event(), event(pid=9) + event(pid=8)), (COUNT, PID))
    assert outcome(judged) == (Outcome.SAME, Level.L0, Level.L2)
    assert judged.tolerated == ("a-pid",)
    assert judged.differences == ()


def test_every_field_needs_an_entry_of_its_own() -> None:
    played = cell(event(), event(count=3, pid=9))
    for entry, other in ((PID, "error_count"), (COUNT, "pid")):
        judged = judge(played, (entry,))
        assert judged.outcome is Outcome.DIFFERENT
        assert judged.tolerated == (entry.id,)
        assert [d.field for d in judged.differences] == [other]
    judged = judge(played, (PID, COUNT))
    assert (judged.outcome, judged.tolerated) == (Outcome.SAME, ("a-count", "a-pid"))


@pytest.mark.parametrize(
    "entry",
    [
        PID._replace(scenario="xfs_*"),
        PID._replace(kernels=("6.1.*", "7.*")),
        PID._replace(field="error"),
        PID._replace(kernels=("a kernel",)),  # the lab's name is no release
    ],
)
def test_an_entry_for_something_else_does_not_help(entry: Tolerance) -> None:
    judged = judge(cell(event(), event(pid=9)), (entry,))
    assert (judged.outcome, judged.tolerated) == (Outcome.DIFFERENT, ())


def test_a_tolerance_does_not_make_up_for_a_trigger_that_caused_nothing() -> None:
    played = with_missing(cell(event(5), event(5, pid=9)), f"real: {LACKS}", f"emulated: {LACKS}")
    assert judge(played, (PID,)).outcome is Outcome.BROKEN
    number = PID._replace(field="error")
    played = with_missing(cell(event(5), event(117)), f"real: {LACKS}")
    assert judge(played, ()).outcome is Outcome.DIFFERENT
    assert judge(played, (number,)).outcome is Outcome.BROKEN


SAME = judge(cell(event(), event()), ())
DIFFERENT = judge(cell(event(), event(5)), ())
BROKEN = judge(cell()._replace(trouble="died"), ())
REFUSED = judge(cell()._replace(not_run="no such kernel feature"), ())
HINDERED = judge(cell()._replace(not_run="no tool", machine=True), ())


@pytest.mark.parametrize(
    ("judged", "stale", "status"),
    [
        ([SAME, SAME], [], 0),
        ([SAME, REFUSED], [], 0),
        ([REFUSED, REFUSED], [], 3),
        ([SAME, HINDERED], [], 3),
        ([HINDERED], [], 3),
        ([], [], 3),
        ([SAME, BROKEN], [], 2),
        ([BROKEN, HINDERED, REFUSED], [], 2),
        ([SAME], ["stale tolerance"], 2),
        ([SAME, HINDERED], ["stale tolerance"], 2),
        ([SAME, DIFFERENT], [], 1),
        ([DIFFERENT, BROKEN, HINDERED, REFUSED], ["stale tolerance"], 1),
    ],
)
def test_exit_status_of_a_run(judged: list[Judged], stale: list[str], status: int) -> None:
    assert verdict(judged, stale) == status
    assert verdict(judged[::-1], stale) == status
