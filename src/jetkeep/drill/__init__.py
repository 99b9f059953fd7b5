"""Drill: restore into a throw-away server, compare by more than one road, keep the evidence."""

from jetkeep.drill.behind import behind
from jetkeep.drill.choice import choose_at_random
from jetkeep.drill.run import DrillOptions, DrillReport, drill

__all__ = ["DrillOptions", "DrillReport", "behind", "choose_at_random", "drill"]
