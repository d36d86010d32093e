"""Clients under ``fserr-bpf exec`` say what they say beside the kernel's own group."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from fserr_bpf_compare.faults.scratch import Scratch, scratch
from tests.exec_clients import (
    COMPILER,
    GO,
    RUST_COMPILER,
    SOURCES,
    Running,
    added_up,
    compile_c,
    compile_go,
    compile_rust,
    under_exec,
    with_names,
)
from tests.live.conftest import (
    BY_NAME,
    IN_LAB,
    skip,
    wait_until,
    write_trigger,
)
from tests.live.exec_place import Place, Played, events_in, play, require_exact_kernel
from tests.live.exec_scenarios import (
    GROUP,
    MARK,
    NONBLOCK,
    ONE,
    READ,
    SCENARIOS,
    TWO,
    UNMARK,
    Scenario,
)

pytestmark = [
    pytest.mark.root,
    pytest.mark.usefixtures("file_systems"),
    pytest.mark.skipif(COMPILER is None, reason="no C compiler (cc)"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("clients")
    with scratch("ext4") as fs, scratch("ext4") as other:
        yield Place(compile_c(directory, "reader"), fs, other, directory)


def same(place: Place, command: Sequence[str], options: Sequence[str] = ()) -> list[str]:
    """Run ``command`` natively and under exec, which has to make no difference; its lines."""
    native = place.said(command)
    assert place.said(under_exec(*command, options=options)) == native
    return native[1]


# what one client does


@pytest.fixture(scope="module")
def native(place: Place) -> Played:
    """The kernel's own group in all scenarios."""
    require_exact_kernel()
    return play(place, SCENARIOS, None)


@pytest.fixture(scope="module")
def default(place: Place, native: Played) -> Played:
    """The descriptor of ``exec``."""
    return play(place, SCENARIOS, ())


@pytest.fixture(scope="module")
def exact(place: Place, native: Played) -> Played:
    """The descriptor of ``exec --exact``."""
    return play(place, SCENARIOS, ("--exact",))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_scenarios_mean_what_they_say(native: Played, scenario: Scenario) -> None:
    assert len(events_in(native[scenario.name])) == scenario.events


@pytest.mark.parametrize(
    "scenario", [s for s in SCENARIOS if not s.pipe], ids=lambda scenario: scenario.name
)
def test_default_descriptor_is_like_the_kernels(
    place: Place, native: Played, default: Played, scenario: Scenario
) -> None:
    """Errors merge for some milliseconds, which a busy machine may spend elsewhere: once more."""
    ours = default[scenario.name]
    if ours != native[scenario.name]:
        ours = play(place, [scenario], ())[scenario.name]
    assert ours == native[scenario.name]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_exact_descriptor_is_like_the_kernels(
    native: Played, exact: Played, scenario: Scenario
) -> None:
    assert exact[scenario.name] == native[scenario.name]


def strict_runs(place: Place, options: Sequence[str]) -> int:
    """How many of 20 clients get all their errors with the only read that they do."""
    client = " ".join(place.client(f"{GROUP} {MARK} cause:5:{{trigger}} {READ}"))
    shell = ("sh", "-c", f"for run in $(seq 20); do {client} || exit 1; done")
    status, lines = place.said(under_exec(*shell, options=options))
    assert status == 0
    assert lines.count("read 56") == 20
    return sum(" count=5 " in line for line in lines)


def test_strict_clients_by_default(place: Place) -> None:
    assert strict_runs(place, ()) >= 18


def test_strict_clients_with_exact(place: Place) -> None:
    assert strict_runs(place, ("--exact",)) == 20


@pytest.mark.parametrize("options", [(), ("--exact",)], ids=["pipe", "exact"])
def test_a_full_queue_overflows(place: Place, options: tuple[str, ...]) -> None:
    """16384 events of as many processes, then one that says that there were more.

    Removing the mark waits for errors that are on their way; what is queued can still be read.
    """
    require_exact_kernel()
    words = f"{NONBLOCK} {MARK} storm:16400:{{trigger}} {UNMARK} events:16385 {READ}"
    status, lines = place.said(under_exec(*place.client(words), options=options))
    assert status == 0
    assert sum(line.startswith("fs_error ") and " count=1 " in line for line in lines) == 16384
    assert lines[16384:] == ["overflow pid=0 fd=-1 pidfd=none", "read: EAGAIN"]


# clients in other languages

Build = Callable[[Path], Path]
READERS: dict[str, tuple[Build, str | None]] = {
    "c": (lambda directory: compile_c(directory, "reader"), COMPILER),
    "c-static": (lambda directory: compile_c(directory, "reader", static=True), COMPILER),
    "python": (lambda directory: SOURCES / "reader.py", "/usr/bin/python3"),
    "rust": (compile_rust, RUST_COMPILER),
    "go": (compile_go, GO),
}


@pytest.mark.parametrize("language", READERS)
@pytest.mark.parametrize("name", ["ext4_bad_inode", "xfs_dirblock"])
def test_reader_in_any_language(
    language: str, name: str, scratch_space: Path, tmp_path: Path
) -> None:
    """ext4 natively and under exec, XFS under exec as the proposed stream has it."""
    build, compiler = READERS[language]
    if compiler is None:
        skip(f"no compiler for {language}", expected=True)
    program = build(tmp_path)
    fault = BY_NAME[name]

    def lines_of(fs: Scratch, prefix: Callable[..., list[str]]) -> list[str]:
        arguments: list[str | Path] = [program, fs.mount_point, "1", "9"]
        if language.startswith("c"):
            mark = f"mark:0x101:0x8000:{fs.mount_point}"
            arguments = [program, GROUP, mark, "say:ready", "errors:1", "exit:9"]
        elif language == "python":
            arguments.insert(0, compiler)
        with Running(tmp_path, prefix(*arguments)) as client:
            wait_until(lambda: client.says("ready"), "the client to be ready")
            caused = fault.cause(fs)
            assert client.end() == 9
            return with_names(client.lines(), {caused.pid: "cause"})

    with scratch(fault.fstype) as fs:
        fault.prepare(fs)
        ours = lines_of(fs, under_exec)
        if fault.fstype == "ext4":
            require_exact_kernel()
            assert ours == lines_of(fs, lambda *command: [*map(str, command)])
    (expected,) = fault.expected_of_proposed()
    (line,) = ours[1:]
    assert f" error={expected.error} count=1 " in line
    if fault.fstype == "ext4":  # XFS may have its buffers looked at by a worker
        assert " pid=cause " in line
    assert (" handle=none " in line) == (expected.form == "sb")


# where clients are


def test_mount_made_later_in_a_namespace_of_its_own(place: Place) -> None:
    """The file system is mounted nowhere else.

    On a busy machine the first error may be read before the second one has been merged into it:
    a pipe is filled after the call that met the error.
    """
    require_exact_kernel()
    words = f"{GROUP} {MARK} {TWO} errors:2"
    mount = f"mount -o errors=continue {place.fs.device} {place.fs.mount_point}"
    script = f'{mount} && exec "$@"'
    place.fs.unmount()
    try:
        command = ["unshare", "-m", "sh", "-c", script, "sh", *place.client(words)]
        native, ours = place.said(command), place.said(under_exec(*command))
    finally:
        place.fs.mount()
    assert len(events_in(native[1])) == 1
    assert (ours[0], added_up(ours[1])) == (native[0], added_up(native[1]))


def test_root_directory_of_its_own(place: Place, tmp_path: Path) -> None:
    require_exact_kernel()
    words = (
        f"{NONBLOCK} chroot:{{mnt}} chdir:/ mark:0x101:0x8000:/lost+found say:ready await {READ}"
    )

    def lines_of(command: Sequence[str]) -> list[str]:
        with Running(tmp_path, command) as client:
            wait_until(lambda: client.says("ready"), "the client to be ready")
            pid = write_trigger(place.fs.device_name, 1)
            assert client.end() == 0
            return with_names(client.lines(), {pid: "cause"})

    native = lines_of(place.client(words))
    assert len(events_in(native)) == 1
    assert lines_of(under_exec(*place.client(words))) == native


@pytest.mark.parametrize("options", [(), ("--exact",)], ids=["pipe", "exact"])
def test_pids_are_those_of_the_clients_namespace(place: Place, options: tuple[str, ...]) -> None:
    """Its own is 1 there."""
    require_exact_kernel()
    words = f"{GROUP} {MARK} pid {ONE} await {READ}"
    for command in (["unshare", "-p", "-f"], ["unshare", "-p", "-f", "--mount-proc"]):
        plain = [*command, *place.client(words)]
        with Running(place.directory, plain) as client:
            assert client.end() == 0
            native = client.lines()
        assert native[0] == "self 1 1"
        assert " pid=1 " in native[1]
        with Running(place.directory, under_exec(*plain, options=options)) as client:
            assert client.end() == 0
            assert client.lines() == native


def test_process_outside_of_the_namespace_is_0(place: Place, tmp_path: Path) -> None:
    require_exact_kernel()
    words = f"{GROUP} {MARK} say:ready await {READ}"
    plain = ["unshare", "-p", "-f", *place.client(words)]

    def lines_of(command: Sequence[str]) -> list[str]:
        with Running(tmp_path, command) as client:
            wait_until(lambda: client.says("ready"), "the client to be ready")
            write_trigger(place.fs.device_name, 1)
            assert client.end() == 0
            return client.lines()

    native = lines_of(plain)
    assert [" pid=0 " in line for line in events_in(native)] == [True]
    assert lines_of(under_exec(*plain)) == native


UNPRIVILEGED = {
    "no_sys_admin": ("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"),
    "nobody": ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
    "user_namespace": ("unshare", "-U", "-r"),
}


@pytest.mark.threat("unprivileged-groups")
@pytest.mark.parametrize("who", UNPRIVILEGED)
def test_who_has_no_privilege_gets_what_the_kernel_gives(place: Place, who: str) -> None:
    words = (
        f"{NONBLOCK} {MARK} mark:0x1:0x8000:{{mnt}} mark:0x1:0x8:/proc/self/exe init:0x300 "
        f"init:0x210 init:0x80 {NONBLOCK} mark:0x1:0x100:{{mnt}} {TWO} {READ}"
    )
    if who == "user_namespace" and IN_LAB:
        skip("the lab's root is a chroot: no user namespaces", expected=True)
    place.fs.mount_point.parent.chmod(0o755)
    lines = same(place, [*UNPRIVILEGED[who], *place.client(words)])
    assert any(line.startswith("mark:0x101:0x8000:") and "EPERM" in line for line in lines)
    assert "init:0x300: EPERM" in lines
    assert events_in(lines) == []


def test_writeback_error_of_xfs(scratch_space: Path, tmp_path: Path, place: Place) -> None:
    """A reader that waits in epoll; several errors of the file become one event or more."""
    fault = BY_NAME["xfs_writeback"]
    with scratch("xfs") as fs:
        fault.prepare(fs)
        mark = f"mark:0x101:0x8000:{fs.mount_point}"
        words = (NONBLOCK, "epoll", mark, "say:ready", "await", "events:1", "exit:3")
        with Running(tmp_path, under_exec(place.reader, *words)) as client:
            wait_until(lambda: client.says("ready"), "the client to be ready")
            fault.cause(fs)
            assert client.end() == 3
            (line,) = added_up(events_in(client.lines()))
    assert " handle=129:" in line
    assert " error=5 " in line
