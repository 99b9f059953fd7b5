"""The agent's own metrics, of this moment (docs/reference/metrics.md)."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from jetkeep.agent.loop import Agent


def figures(agent: Agent, *, config_ok: bool) -> bytes:
    """The text format of Prometheus."""
    registry = CollectorRegistry()
    words = "Whether the configuration as it is now could be read; else the one before counts."
    Gauge("jetkeep_agent_config_ok", words, registry=registry).set(config_ok)
    labels = ("schedule",)
    due = Gauge("jetkeep_agent_schedule_next_timestamp_seconds", "When it is due next.", labels, registry=registry)
    running = Gauge("jetkeep_agent_running", "Whether its command runs here.", labels, registry=registry)
    for schedule in agent.schedules:
        running.labels(schedule.name).set(schedule.name in agent.running)
        if moment := agent.next.get(schedule.name):
            due.labels(schedule.name).set(moment.timestamp())
    return generate_latest(registry)
