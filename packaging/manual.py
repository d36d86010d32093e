"""The manual as pages for man(1): the whole, and one for each command.

``manual.py MANUAL.md FOLDER`` writes FOLDER/fserr-bpf.8 and FOLDER/fserr-bpf-COMMAND.8 with
pandoc. What a command is for is the line of ``--help``; tests hold the manual against its rest.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from fserr_bpf.cli import parser


def sections(text: str, level: int) -> dict[str, str]:
    """The text below each heading of ``level``, by its words, in order."""
    parts = re.split(rf"^{'#' * level} (.+)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def synopsis_of(command: str, synopsis: str) -> str:
    """The lines of SYNOPSIS that are about ``command``."""
    whole = re.split(r"\n(?=    fserr-bpf )", synopsis.strip("\n"))
    pattern = rf"    fserr-bpf (\[--debug\] )?{re.escape(command)}\b"
    return "\n".join(each for each in whole if re.match(pattern, each))


def helps_of(whole: argparse.ArgumentParser, words: str = "") -> Iterator[tuple[str, str]]:
    """The line of --help about each command."""
    for action in whole._actions:
        if isinstance(action, argparse._SubParsersAction):
            for choice in action._choices_actions:
                yield f"{words}{choice.dest}", str(choice.help)
                yield from helps_of(action.choices[choice.dest], f"{words}{choice.dest} ")


def pages(text: str) -> dict[str, str]:
    """Markdown by the name of the page."""
    top = sections(text, 2)
    names: dict[str, str] = {}
    helps = dict(helps_of(parser()))
    for command, body in sections(top["COMMANDS"], 3).items():
        name = f"fserr-bpf-{command.replace(' ', '-')}"
        names[name] = (
            f"## NAME\n\n{name} - {helps[command]}\n\n"
            f"## SYNOPSIS\n\n{synopsis_of(command, top['SYNOPSIS'])}\n\n## DESCRIPTION\n{body}\n"
            "## SEE ALSO\n\nfserr-bpf(8), which has output, exit status, environment and files\n"
        )
    pointers = ", ".join(f"{name}(8)" for name in names)
    whole = text.partition("\n")[2].replace("## SEE ALSO\n\n", f"## SEE ALSO\n\n{pointers}; ")
    return {"fserr-bpf": whole, **names}


def main(manual: str, folder: str) -> None:
    """Write the pages."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, text in pages(Path(manual).read_text()).items():
        command = ["pandoc", "-s", "-f", "markdown-smart", "-t", "man"]
        command += ["--shift-heading-level-by=-1", "-M", f"title={name.upper()}", "-M", "section=8"]
        command += ["-M", "footer=fserr-bpf", "-o", f"{folder}/{name}.8"]
        subprocess.run(command, input=text, text=True, check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
