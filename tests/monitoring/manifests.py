"""Write what the rules are in other forms, and the chart's copy: `python -m tests.monitoring.manifests`."""

from __future__ import annotations

import textwrap
from pathlib import Path

MONITORING = Path(__file__).parents[2] / "deploy" / "monitoring"
RULES = MONITORING / "rules.yaml"
PRODUCT = MONITORING / "prometheusrule.yaml"
#: A chart reads no file outside of it.
COPY = MONITORING.parent / "helm" / "jetkeep" / "files" / "rules.yaml"
HEAD = """\
# Written by `python -m tests.monitoring.manifests` from rules.yaml; do not edit.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: jetkeep
  labels:
    app.kubernetes.io/name: jetkeep
    app.kubernetes.io/component: monitoring
spec:
"""


def render() -> str:
    """The rules as the Prometheus Operator takes them."""
    text = RULES.read_text()
    return HEAD + textwrap.indent(text[text.index("groups:") :], "  ")


if __name__ == "__main__":
    PRODUCT.write_text(render())
    COPY.write_text(RULES.read_text())
