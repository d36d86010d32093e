"""The kernel's log beside our events: errors that it names and no event has.

Everything here is pure. An error is a message that the kernel gives the level "error" or a
worse one and that names the device; what it says further about an error that it has named
already is none (`_FURTHER`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

ERROR = 3
"""KERN_ERR of ``include/linux/kern_levels.h``: worse ones have smaller numbers."""


class Unheard(NamedTuple):
    """Messages without an event: the function that they name, or their words without numbers.

    ``lines`` is how many there are more than events; ``example`` is the first message.
    """

    function: str
    lines: int
    example: str


# How each file system names the function that has found an error.
_FUNCTIONS = (
    r"error(?: \(device [^)]*\))?:? (?:in )?(\w+):\d+",  # ext4_error(), btrfs_handle_fs_error()
    r"detected at (\w+)[.\w]*\+0x",  # xfs_corruption_error(), xfs_buf_verifier_error(), a shutdown
    r"Internal error .* Caller (\w+)[.\w]*\+0x",  # xfs_error_report()
    # where the caller of ext4_msg(), xfs_alert() or fat_fs_error() does
    r"EXT4-fs \([^)]*\): (ext4_\w+): ",
    r"XFS \([^)]*\): (xfs_\w+): ",
    r"error, (\w+):",
)
# Who says what names no function: `iomap_finish_ioend` of ``fs/iomap/buffered-io.c``
_SAID_BY = ((r": writeback error on inode \d+, offset", "iomap_finish_ioend"),)
# XFS verifies what it reads ahead, and again with the same words when somebody asks for it
_VERIFIED = re.compile(r"XFS \([^)]*\): Metadata (?:CRC error|corruption) detected at ")
# What follows a message about an error and says nothing new.
_FURTHER = (
    r"Unmount and run xfs_repair|Please (?:unmount|umount|run)",
    r"First \d+ bytes of corrupted metadata",
    r"metadata I/O error in .* error (?:74|117)$",  # the verifier has named it
    r"Remounting filesystem read-only|Filesystem has been set read-only",
    # of "Delayed block allocation failed", ext4_print_free_blocks()
    r"This should not happen!!|Total free blocks count|(?:free|dirty|reserved_data)_blocks=",
    r"Free/Dirty block details|Block reservation details",
)
_NUMBER = re.compile(r"\b(?:0x[0-9a-f]+|[0-9a-f]{8,}|\d+)\b")


def unheard(errors: Iterable[str], device: str, heard: Mapping[str, int]) -> tuple[Unheard, ...]:
    """What is in the log and not in our events, by function.

    ``errors`` are messages about ``device`` (see `errors_of`), ``heard`` is how many errors
    our events have by function; each of those under "", whose function is not known, stands for
    any one message.
    """
    spare = heard.get("", 0)
    lines: dict[str, list[str]] = {}
    for message in errors:
        lines.setdefault(function_of(message, device), []).append(message)
    found = []
    for function, messages in lines.items():
        errors_heard = heard.get(function, 0)
        if (errors_heard or spare) and _VERIFIED.match(messages[0]):
            left = len(set(messages)) - errors_heard
        else:
            left = len(messages) - errors_heard
        if left > 0:
            known = min(left, spare)
            spare -= known
            if left > known:
                found.append(Unheard(function, left - known, messages[0]))
    return tuple(found)


def errors_of(device: str, leveled: Iterable[tuple[int, str]]) -> Iterator[str]:
    """The messages that are errors of ``device``, such as ``loop0``."""
    named = re.compile(rf"\b{re.escape(device)}\b")
    further = re.compile("|".join(_FURTHER))
    for level, message in leveled:
        if level <= ERROR and named.search(message) and not further.search(message):
            yield message


def function_of(message: str, device: str) -> str:
    """The function that ``message`` names; without one its words, ``N`` for each number."""
    for pattern in _FUNCTIONS:
        if found := re.search(pattern, message):
            return found[1]
    for pattern, function in _SAID_BY:
        if re.search(pattern, message):
            return function
    words = message.replace("\\x0a", " ").strip()
    return _NUMBER.sub("N", re.sub(rf"\b{re.escape(device)}\b", "DEVICE", words))


def together(found: Iterable[tuple[str, Iterable[Unheard]]]) -> list[tuple[Unheard, list[str]]]:
    """Those of several images by function, the most frequent first, each with its images."""
    lines, images, examples = Counter[str](), dict[str, list[str]](), dict[str, str]()
    for image, unheards in found:
        for one in unheards:
            lines[one.function] += one.lines
            images.setdefault(one.function, []).append(image)
            examples.setdefault(one.function, one.example)
    return [
        (Unheard(function, count, examples[function]), images[function])
        for function, count in lines.most_common()
    ]
