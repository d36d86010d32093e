"""The real journald, in a mount namespace of its own: what it keeps of our datagrams."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fserr_bpf.outputs.classes import MessageClass
from fserr_bpf.outputs.journal import IDENTIFIER, MESSAGE_IDS
from tests.live.conftest import skip

pytestmark = pytest.mark.root

JOURNALD = Path("/lib/systemd/systemd-journald")
# its folders are hidden by empty ones, so that the host's journal is not touched
SCRIPT = """
set -e
for folder in /run /var/log; do mount -t tmpfs tmpfs $folder; done
mkdir -p /run/systemd/journal /run/log/journal
start() {
    "$1" >/dev/null 2>&1 &
    journald=$!
    for _ in $(seq 200); do [ -S /run/systemd/journal/socket ] && return; sleep 0.05; done
    exit 1
}
start "$1"
"$2" -c "$3" first
kill $journald; wait $journald || true
rm -f /run/systemd/journal/socket
start "$1"
"$2" -c "$3" second
for _ in $(seq 200); do
    journalctl -D /run/log/journal -t fserr-bpf -o json --all >/run/out 2>/dev/null || true
    [ "$(wc -l </run/out)" = 2 ] && break
    sleep 0.05
done
cat /run/out
kill $journald
"""
SEND = """
import sys
from fserr_bpf.outputs.journal import JournalSocket
from tests.unit.test_outputs import EVENT, ORIGIN
point = "/srv/" + sys.argv[1] + "\\nPRIORITY=0\\udcff"
with JournalSocket("/run/systemd/journal/socket") as target:
    target.send([EVENT._replace(origin=ORIGIN._replace(mount_point=point))])
"""


def kept(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def test_journald_keeps_every_field_also_after_a_restart() -> None:
    """Names with a newline and bytes that are no UTF-8 come back as they were."""
    if not JOURNALD.exists() or shutil.which("journalctl") is None:
        skip("needs systemd-journald (apt install systemd)", expected=False)
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", SCRIPT, "sh", JOURNALD, sys.executable, SEND],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for entry, which in zip(kept(done.stdout), ("first", "second"), strict=True):
        assert entry["MESSAGE_ID"] == MESSAGE_IDS[MessageClass.CORRUPTION]
        assert (entry["SYSLOG_IDENTIFIER"], entry["PRIORITY"]) == (IDENTIFIER, "2")
        assert (entry["FSERR_ERRNO"], entry["FSERR_INO"]) == ("EFSCORRUPTED", "14")
        assert bytes(entry["FSERR_MOUNT_POINT"]) == b"/srv/%s\nPRIORITY=0\xff" % which.encode()
        assert "\n" not in entry["MESSAGE"]
