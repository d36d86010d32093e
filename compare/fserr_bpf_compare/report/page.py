"""``index.html``: one file without scripts, which asks the network for nothing.

Names and messages in it come from kernels, processes and disks that may be hostile. Jinja2
escapes all of them, what does not print is made visible, and a Content-Security-Policy
allows the one style sheet and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from fserr_bpf_compare.report import terminal, view
from fserr_bpf_compare.report.run import Run
from fserr_bpf_compare.report.text import visible
from fserr_bpf_compare.verdict.cells import Judged

_FOLDER = Path(__file__).parent


def render(judged: Sequence[Judged], run: Run) -> str:
    """The page."""
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (_FOLDER / "page.css").read_text()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    images = any(one.cell.image for one in judged)
    return environment.get_template("page.html.j2").render(
        page=view.page(judged, run),
        levels=view.LEVELS,
        noun="image" if images else "scenario",
        no_event=terminal.NO_EVENT_OF_IMAGE if images else terminal.NO_EVENT,
        style=Markup(style),
        style_hash=f"sha256-{digest}",
    )


def _visible(value: object) -> object:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
