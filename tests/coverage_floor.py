"""``make coverage``: the table of lines and branches, and a floor for each file of it.

pyproject.toml says which modules, and how much all of them together must have.
"""

from __future__ import annotations

import os
import sys

from coverage import Coverage
from coverage.exceptions import NoDataError


def main() -> int:
    """Print the table of the last run; 1 if a file or all of them are below the floor."""
    measured = Coverage()
    measured.load()
    try:
        together = measured.report()
    except NoDataError as error:
        sys.exit(f"{error}; run the tests with coverage first")
    floor = float(measured.get_option("report:fail_under") or 0)  # type: ignore[arg-type]
    with open(os.devnull, "w") as nowhere:
        each = {
            os.path.relpath(file): measured.report(include=[file], file=nowhere, skip_empty=False)
            for file in measured.get_data().measured_files()
        }
    low = {file: share for file, share in sorted(each.items()) if share < floor}
    for file, share in low.items():
        print(f"{file}: {share:.1f} % of lines and branches, less than {floor:.0f} %")
    return int(bool(low) or together < floor)


if __name__ == "__main__":
    sys.exit(main())
