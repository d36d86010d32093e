"""The completion of a shell, from the grammar of the command line: ``completion.py SHELL``."""

from __future__ import annotations

import sys

import shtab

from fserr_bpf.cli import parser

print(shtab.complete(parser(), shell=sys.argv[1]))
