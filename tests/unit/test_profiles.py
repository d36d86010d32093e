"""What is promised on which kernel."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fserr_bpf.model.stream import Stream
from fserr_bpf_compare.machines import kernels
from fserr_bpf_compare.verdict.cells import Level
from fserr_bpf_compare.verdict.profiles import profile, version_of
from tests.unit.test_docs import rows


@pytest.mark.parametrize("version", [(5, 10), (6, 1), (6, 12), (6, 19)])
def test_up_to_6_19_the_bytes_are_promised(version: tuple[int, int]) -> None:
    for stream in (None, Stream.NATIVE):
        assert profile(version, stream) == (Stream.NATIVE, Level.L0, False, "")


@pytest.mark.parametrize("version", [(7, 0), (7, 3), (8, 0)])
def test_from_workers_the_errors_are_promised(version: tuple[int, int]) -> None:
    for stream in (None, Stream.FSERROR):
        assert profile(version, stream) == (Stream.FSERROR, Level.L2, True, "")
    assert profile(version, Stream.NATIVE) == (Stream.NATIVE, Level.L2, True, "")


@pytest.mark.parametrize(
    ("version", "stream", "sent"),
    [
        ((6, 12), Stream.FSERROR, "native"),
        ((6, 12), Stream.PROPOSED, "native"),
        ((7, 3), Stream.PROPOSED, "fserror"),
    ],
)
def test_what_no_kernel_sends_is_compared_with_nothing(
    version: tuple[int, int], stream: Stream, sent: str
) -> None:
    asked, level, _, reason = profile(version, stream)
    assert (asked, level) == (stream, None)
    assert reason == (
        f"this kernel sends the stream {sent}: it has nothing to compare {stream} with"
    )


@pytest.mark.parametrize(
    ("release", "version"),
    [
        ("5.10.0-30-amd64", (5, 10)),
        ("6.12.117+deb13-amd64", (6, 12)),
        ("7.3.4+deb13-amd64", (7, 3)),
        ("7.0-rc1", (7, 0)),
    ],
)
def test_version_of_a_release(release: str, version: tuple[int, int]) -> None:
    assert version_of(release) == version


@pytest.mark.parametrize("release", ["", "amd64", "v6.1", "6"])
def test_what_is_no_release_is_refused(release: str) -> None:
    with pytest.raises(ValueError, match="is not a kernel release"):
        version_of(release)


def test_the_document_has_the_same_promises() -> None:
    text = (Path(__file__).parents[2] / "docs/compare.md").read_text()
    _, *table = rows(text.partition("## What a kernel promises")[2], 4)
    assert [row[0].partition(" with")[0] for row in table] == [
        "up to 6.19",
        "7.0 and later",
        "6.12",
    ]
    for (_, streams, level, _), version in zip(table, [(6, 19), (7, 0), (6, 12)], strict=True):
        patched = version == (6, 12)
        named = re.findall(r"`(\w+)`", streams)
        promised = {s: profile(version, s, patched=patched).level for s in (None, *Stream)}
        assert profile(version, None, patched=patched).stream == named[0]
        assert {s for s, found in promised.items() if found is not None} == {None, *named}
        assert {found.name for found in promised.values() if found is not None} == {level}


def test_the_lab_has_kernels_of_both_kinds() -> None:
    levels = {profile(version_of(f"{k.name}.0"), None).level for k in kernels.KERNELS}
    assert levels == {Level.L0, Level.L2}
