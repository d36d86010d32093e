"""Which directories of which layers an object of an overlay is, from its mount options.

Source: ``ovl_show_options()`` in ``fs/overlayfs/params.c`` (``super.c`` before 6.5). Layers
are named as whoever mounted it named them.
"""

from __future__ import annotations

import os
import re
import stat
from typing import NamedTuple

from fserr_bpf.errors import MarkError

_ESCAPED = re.compile(r"\\(.)")
_OPAQUE, _REDIRECT = "trusted.overlay.opaque", "trusted.overlay.redirect"


class Layers(NamedTuple):
    """Absolute paths; ``upper`` is "" for an overlay that nobody can write to."""

    upper: str
    lower: tuple[str, ...]


def layers_in(super_options: str) -> Layers:
    """The layers of an overlay by its options in mountinfo, uppermost first."""
    upper, lower = "", []
    for option in re.split(r"(?<!\\),", super_options):
        name, _, value = option.partition("=")
        if name == "upperdir":
            upper = _ESCAPED.sub(r"\1", value)
        elif name == "lowerdir":
            # behind "::" are layers of file data only, which have no names
            paths = re.split(r"(?<!\\)::", value)[0]
            lower += [_ESCAPED.sub(r"\1", path) for path in re.split(r"(?<!\\):", paths)]
        elif name == "lowerdir+":
            lower.append(_ESCAPED.sub(r"\1", value))
    return Layers(upper, tuple(lower))


def objects_in(layers: Layers, relative: str, path: str) -> list[str]:
    """Where ``relative`` of the overlay is in its layers, those only that it shows.

    ``path`` is what the user calls it. Raises MarkError for a layer whose path is relative,
    or if no layer can be reached.
    """
    found: list[str] = []
    for layer in filter(None, (layers.upper, *layers.lower)):
        if not os.path.isabs(layer):
            raise MarkError(
                f"{path}: the overlay's layer {layer} has no absolute path",
                "mark the directory in its layers",
            )
        here, hides, relative = _follow(layer, relative)
        if here:
            found.append(here)
        if hides:
            break
    if not found:
        raise MarkError(
            f"{path}: not found in the overlay's layers {', '.join(filter(None, layers.lower))}",
            "mark the directory in its layers",
        )
    return found


def _follow(layer: str, relative: str) -> tuple[str, bool, str]:
    """The object in one layer or "", whether lower ones are hidden, and its path in those."""
    here, below, hides = layer, "", False
    for name in filter(None, relative.split("/")):
        here, below = os.path.join(here, name), os.path.join(below, name)
        try:
            status = os.lstat(here)
        except (FileNotFoundError, NotADirectoryError):
            return "", hides, os.path.join(below, _rest(relative, here[len(layer) :]))
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:  # a whiteout
            return "", True, relative
        if not stat.S_ISDIR(status.st_mode):
            return here, True, relative
        hides |= _attribute(here, _OPAQUE) == b"y"
        if redirect := os.fsdecode(_attribute(here, _REDIRECT)):
            folder = os.path.dirname(below)
            below = redirect.lstrip("/") if redirect[0] == "/" else os.path.join(folder, redirect)
    return here, hides, below


def _rest(relative: str, seen: str) -> str:
    depth = len([name for name in seen.split("/") if name])
    return "/".join([name for name in relative.split("/") if name][depth:])


def _attribute(path: str, name: str) -> bytes:
    try:
        return os.getxattr(path, name, follow_symlinks=False)
    except OSError:
        return b""
