"""When cron expressions fire, by another implementation: cronsim for the times on the wall, Python's zoneinfo (with the
tz database from PyPI) for the instants. Reads cases as JSON from stdin; writes for each the number of its instants and
their SHA-256, or with `list` the instants themselves.
"""

import hashlib
import json
import sys
import zoneinfo
from datetime import datetime, timedelta, timezone

from cronsim import CronSim

UTC = timezone.utc
EPOCH = datetime(1970, 1, 1)
FIRST, END = datetime(1990, 1, 1), datetime(2038, 1, 1)
MARGIN = timedelta(days=3)

# The tz database of PyPI, not the machine's.
zoneinfo.reset_tzpath(())


def walls(expression):
    """Times on the wall: naive, so that nothing is decided about clock changes here."""
    nicknames = {"@yearly": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0", "@daily": "0 0 * * *", "@hourly": "0 * * * *"}
    found = []
    for wall in CronSim(nicknames.get(expression, expression), FIRST - MARGIN - timedelta(seconds=1)):
        if wall > END + MARGIN:
            return found
        found.append(wall)


def instants(found, zone, gap, fold):
    """Seconds since the epoch, in order, each once."""
    placed = set()
    for wall in found:
        one, other = zone.utcoffset(wall), zone.utcoffset(wall.replace(fold=1))
        if one == other:
            placed.add(wall - one)
        elif one > other:
            # The clock shows it twice: with the larger offset first.
            if fold != "last":
                placed.add(wall - one)
            if fold != "first":
                placed.add(wall - other)
        elif gap == "shift":
            # The clock skips it: counted with the offset of before, it falls behind the gap by as much.
            placed.add(wall - one)
    return [int((at - EPOCH).total_seconds()) for at in sorted(placed) if FIRST <= at < END]


def main():
    listed = sys.argv[1:] == ["list"]
    for case in json.load(sys.stdin):
        found = walls(case["cron"])
        for name in case["zones"]:
            all_of = instants(found, zoneinfo.ZoneInfo(name), case["gap"], case["fold"])
            if listed:
                print(json.dumps(all_of))
                continue
            digest = hashlib.sha256("".join(f"{at}\n" for at in all_of).encode()).hexdigest()
            print(json.dumps({"cron": case["cron"], "zone": name, "count": len(all_of), "digest": digest}), flush=True)


main()
