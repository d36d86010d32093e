"""What ``tests/clients/reader.c`` does in ``test_exec_clients.py``, natively and taken over.

In words, {mnt} is an ext4 file system, {other} another one, {trigger} and {other_trigger} the
files in sysfs that cause an error of them.
"""

from __future__ import annotations

from typing import NamedTuple

# FAN_REPORT_FID; and with FAN_CLOEXEC | FAN_NONBLOCK; FAN_MARK_ADD of the file system
GROUP = "init:0x200"
NONBLOCK = "init:0x203"
MARK = "mark:0x101:0x8000:{mnt}"
UNMARK = "mark:0x102:0x8000:{mnt}"
READ = "read:4096"
ONE, TWO, FIVE = (f"cause:{times}:{{trigger}}" for times in (1, 2, 5))

_ONE_PER_READ = "a pipe gives one event in each read"
_TRUNCATED = "a pipe loses what does not fit"
_LATE = "a pipe is filled after the system call that met the error"


class Scenario(NamedTuple):
    """``words`` are separated by spaces.

    ``events`` is how many lines of events the kernel's own group gives, ``pipe`` says why the
    default descriptor differs, "" if it does not.
    """

    name: str
    words: str
    events: int
    pipe: str = ""


SCENARIOS = (
    Scenario("merged", f"{GROUP} {MARK} {FIVE} await {READ} exit:7", 1),
    Scenario(
        "nonblock",
        f"{NONBLOCK} ready {MARK} {READ} {ONE} await ready {READ} {READ} ready",
        1,
    ),
    Scenario("not_marked", f"{NONBLOCK} {ONE} {MARK} {TWO} await {READ} {READ}", 1),
    Scenario("epoll", f"{NONBLOCK} epoll {MARK} {TWO} await {READ}", 1),
    Scenario("edge", f"{NONBLOCK} edge {MARK} {ONE} await {READ} {ONE} await {READ}", 2),
    Scenario("in_thread", f"{GROUP} {MARK} threaded {ONE} errors:1 exit:3", 1),
    Scenario("inherited", f"{GROUP} {MARK} forked {ONE} errors:1 exit:4", 1),
    Scenario("copied", f"{GROUP} dup {MARK} {ONE} dup await {READ} exit:5", 1),
    Scenario("tid", f"init:0x300 {MARK} threaded pid {ONE} await {READ}", 1),
    Scenario("directory_and_name", f"init:0xe01 {MARK} {ONE} await {READ}", 1),
    Scenario(
        "directory_only",
        f"init:0x403 {MARK} {NONBLOCK} {MARK} {ONE} await {READ} use:0 {READ}",
        1,
    ),
    Scenario(
        "two_processes",
        f"{GROUP} {MARK} {TWO} storm:1:{{trigger}} {ONE} await {READ}",
        2,
        _ONE_PER_READ,
    ),
    Scenario(
        "two_groups",
        f"{GROUP} {MARK} {NONBLOCK} {TWO} {MARK} {ONE} await {READ} {READ} use:0 await {READ}",
        2,
    ),
    Scenario(
        "two_file_systems",
        f"{GROUP} {MARK} mark:0x101:0x8000:{{other}} {ONE} cause:1:{{other_trigger}} {ONE} "
        f"await {READ}",
        2,
        _ONE_PER_READ,
    ),
    Scenario(
        "mixed",
        f"{NONBLOCK} mark:0x101:0x40008100:{{mnt}} {TWO} create:{{mnt}}/new1 {ONE} events:2 {READ}",
        2,
    ),
    Scenario(
        "bit_by_bit",
        f"{NONBLOCK} mark:0x101:0x100:{{mnt}} {ONE} {MARK} {ONE} create:{{mnt}}/new2 events:2 "
        f"mark:0x102:0x100:{{mnt}} create:{{mnt}}/new3 {TWO} events:1 {READ}",
        3,
    ),
    Scenario(
        "removed",
        f"{NONBLOCK} {MARK} {ONE} {UNMARK} {TWO} await {READ} {READ} {UNMARK} "
        f"{MARK} {ONE} await {READ}",
        2,
    ),
    Scenario(
        "flushed", f"{NONBLOCK} {MARK} {ONE} mark:0x180:0:{{mnt}} {TWO} await {READ} {READ}", 1
    ),
    Scenario(
        "ignored",
        f"{NONBLOCK} {MARK} mark:0x121:0x8000:{{mnt}} {TWO} {READ} mark:0x122:0x8000:{{mnt}} "
        f"{ONE} await {READ}",
        1,
    ),
    Scenario(
        "closed_and_made_again",
        f"{NONBLOCK} {MARK} {ONE} close {NONBLOCK} {MARK} {READ} {ONE} await {READ}",
        1,
    ),
    Scenario("relative", f"{NONBLOCK} chdir:{{mnt}} mark:0x101:0x8000:. {ONE} await {READ}", 1),
    Scenario("in_chroot", f"{NONBLOCK} chroot:{{mnt}} mark:0x101:0x8000:/ say:done", 0),
    Scenario(
        "refused",
        f"init:0x20c init:0x80000000 {NONBLOCK} mark:0x11:0x8000:{{mnt}} "
        "mark:0x101:0x18000:{mnt} mark:0x101:0x8000:/proc mark:0x101:0x8000:{mnt}/missing "
        f"mark:0x101:0:{{mnt}} init:0 {MARK} {UNMARK}",
        0,
    ),
    Scenario(
        "small_buffer",
        f"{NONBLOCK} {MARK} {ONE} await read:24 read:55 read:56 {READ}",
        1,
        _TRUNCATED,
    ),
    Scenario(
        "strict", f"{NONBLOCK} {MARK} {FIVE} {READ} {READ} ready {TWO} ready {READ}", 2, _LATE
    ),
)
