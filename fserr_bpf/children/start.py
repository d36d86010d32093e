"""What a child's interpreter runs, by its path: ``start.py MODULE ARGUMENT...``.

The package may be in a folder of its own that no interpreter looks into, as Debian's is.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    home = str(Path(__file__).resolve().parents[2])
    if home not in sys.path:
        sys.path.insert(0, home)
    module = sys.argv.pop(1)
    runpy.run_module(module, run_name="__main__", alter_sys=True)
