"""A PostgreSQL of one's own: Debian's binaries, a data directory anywhere, no network."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fserr_bpf_compare.faults.scratch import run
from tests.live.conftest import wait_until

_USER = "postgres"
_AS_USER = ("setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--clear-groups")
_PROGRAMS = Path("/usr/lib/postgresql")
_STOP_SECONDS = 60
# What writes to the table at other times than those of the test is off.
_SETTINGS = {
    "listen_addresses": "",
    "log_line_prefix": "%n ",  # seconds since 1970, with milliseconds
    "autovacuum": "off",
    "bgwriter_lru_maxpages": "0",
    "checkpoint_timeout": "1h",
    "max_wal_size": "4GB",
    "shared_buffers": "16MB",  # less than the table: backends write, too
    "restart_after_crash": "off",
}


def programs() -> Path | None:
    """The folder with initdb, postgres and psql, of the newest version; None without one."""
    found = sorted(_PROGRAMS.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


@dataclass
class PostgreSQL:
    """A server that runs. ``sockets`` is the folder of its socket."""

    data: Path
    sockets: Path
    log: Path
    programs: Path
    server: subprocess.Popen[bytes]

    def sql(self, command: str) -> str:
        """What psql prints for ``command``, which has to succeed."""
        done = self._psql(command, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def fails(self, command: str) -> str:
        """What psql says when ``command`` ends without success."""
        done = self._psql(command, check=False)
        assert done.returncode != 0, done.stdout
        return done.stderr

    def _psql(self, command: str, *, check: bool) -> subprocess.CompletedProcess[str]:
        line = (self.programs / "psql", "-h", self.sockets, "-U", _USER, "-d", "postgres", "-Atqc")
        return subprocess.run(
            [*line, command], capture_output=True, text=True, check=check, timeout=600
        )

    def messages(self, level: str, begin: str = "") -> list[tuple[float, str]]:
        """Time in seconds since 1970, rounded down to milliseconds, and text of its messages.

        Those that begin with ``begin``.
        """
        pattern = rf"^(\d+\.\d{{3}}) {level}:  ({begin}.*)$"
        found = re.findall(pattern, self.log.read_text(), re.MULTILINE)
        return [(float(time), text) for time, text in found]


@contextmanager
def postgresql(programs: Path, data: Path, wal: Path, home: Path) -> Iterator[PostgreSQL]:
    """A new cluster in ``data``, its log of writes in ``wal``, that runs until the end.

    Both are made; ``home`` is for its socket and its log. All three are folders that the
    user postgres reaches.
    """
    for folder in (data, wal, home):
        folder.mkdir(exist_ok=True)
        shutil.chown(folder, _USER, _USER)
        folder.chmod(0o700)
    home.chmod(0o755)
    initdb = (programs / "initdb", "--no-sync", "--auth=trust", f"--username={_USER}")
    run(*_AS_USER, *map(str, initdb), f"--waldir={wal}", f"--pgdata={data}")
    settings = _SETTINGS | {"unix_socket_directories": str(home)}
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    log = home / "log"
    with (
        log.open("wb") as file,
        subprocess.Popen(
            [*_AS_USER, str(programs / "postgres"), "-D", str(data), *options],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        ) as server,
    ):
        started = PostgreSQL(data, home, log, programs, server)
        try:
            wait_until(
                lambda: (
                    server.poll() is not None
                    or bool(started.messages("LOG", "database system is ready"))
                ),
                "PostgreSQL to start",
            )
            assert server.poll() is None, log.read_text()
            yield started
        finally:
            server.send_signal(signal.SIGQUIT)  # at once, without a checkpoint
            server.wait(_STOP_SECONDS)
