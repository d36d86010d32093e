"""How long ago, in words that change as seldom as they can."""

from __future__ import annotations

import math
from datetime import datetime

_NS = 1_000_000_000
# seconds in a step, steps shown as so many, of what
_STEPS = ((86400, 1, "d"), (3600, 1, "h"), (60, 1, "min"), (10, 10, "s"))


class Ages:
    """Ages as of ``now_ns`` (CLOCK_REALTIME).

    ``changes_in`` is how many seconds later the first of the ages that were asked for reads
    different, infinity if none was.
    """

    def __init__(self, now_ns: int) -> None:
        self._now_ns = now_ns
        self.changes_in = math.inf

    def ago(self, time_ns: int) -> str:
        """The age in its greatest unit, rounded down, seconds by tens; "now" if it is below."""
        age_ns = max(self._now_ns - time_ns, 0)
        seconds, shown, unit = next((s for s in _STEPS if age_ns >= s[0] * _NS), _STEPS[-1])
        steps, over_ns = divmod(age_ns, seconds * _NS)
        self.changes_in = min(self.changes_in, seconds - over_ns / _NS)
        return f"{steps * shown} {unit}" if steps else "now"

    def clock(self, time_ns: int) -> str:
        """Local time of day, or the day if it is not today: eight characters or less."""
        then = datetime.fromtimestamp(time_ns // _NS)
        today = datetime.fromtimestamp(self._now_ns // _NS).date()
        return f"{then:%H:%M:%S}" if then.date() == today else f"{then:%b %d}"
