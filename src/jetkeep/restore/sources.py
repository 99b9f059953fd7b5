"""Where a restored stream goes on reading its sources. Pure.

A server finds that in the `Nats-Stream-Source` header of the stream's newest messages. When none of an origin's
messages is left (a drained work queue, limits), it would take everything again: then `opt_start_seq` says where.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

from jetkeep.model import JsonDict
from jetkeep.restore.decisions import Difference
from jetkeep.restore.forecast import Forecast


def resume_sources(
    config: JsonDict, last_seq: int, forecast: Forecast, ends: Mapping[str, int]
) -> tuple[JsonDict, list[Difference]]:
    """The configuration with a start for every source that the messages do not tell; `ends`: stream → last sequence.

    `last_seq` is the stream's own: one that never held a message starts as it would have. `ends` holds the origins of
    the same backup, else those at the target.
    """
    parts = config.get("sources") or []
    if not parts or not last_seq:
        return config, []
    changed = copy.deepcopy(config)
    differences: list[Difference] = []
    for at, source in enumerate(changed["sources"]):
        name = str(source.get("name", ""))
        if any(stream == name for stream, _ in forecast.origins):
            continue
        end = None if source.get("external") else ends.get(name)
        if end is not None:
            if int(source.get("opt_start_seq") or 0) > end:
                continue
            source.pop("opt_start_time", None)
            source["opt_start_seq"] = end + 1
            why = f"no message of {name} is left to tell where to go on; the backup of {name} ends at {end}"
            differences.append(Difference(f"sources[{at}].opt_start_seq → {end + 1}", why))
        else:
            why = "nothing tells how far it was read: no message of it is left, and it is in neither backup nor account"
            differences.append(Difference(f"all that source {name} holds is taken again", why))
    return changed, differences
