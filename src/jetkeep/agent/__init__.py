"""The long-running process: does on schedule, once among all replicas, what CronJobs do elsewhere."""

from jetkeep.agent.loop import Agent
from jetkeep.agent.schedule import Schedule, schedules_of

__all__ = ["Agent", "Schedule", "schedules_of"]
