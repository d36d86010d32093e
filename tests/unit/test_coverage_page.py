"""docs/coverage.md is the tables of the probes."""

from __future__ import annotations

from pathlib import Path

from fserr_bpf.model.stream import Stream
from fserr_bpf.probes.coverage import SEEN, UNSEEN
from fserr_bpf.probes.table import PROBES, wanted
from fserr_bpf.uapi.record import Probe
from fserr_bpf_compare.report.coveragepage import COLUMNS, render, sees

ROOT = Path(__file__).parents[2]
# no error, or part of what another names
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
