"""Is what stands in these manifests, or in this cluster, safe to rely on? Looks, changes nothing, and prints no secret.

`reading` turns files into `document`s whose every value knows its line, `live` does the same with a cluster; the rules of
`credentials`, `endpoints`, `workloads`, `permissions` and `coverage` look at them; `suppressions` takes out what somebody
accepts, with a reason; `run` puts it together and `sarif` is one of its forms.
"""

from jetkeep.audit.findings import Finding, Place, Report, Rule, Severity, Suppressed
from jetkeep.audit.rules import RULES
from jetkeep.audit.run import audit

__all__ = ["RULES", "Finding", "Place", "Report", "Rule", "Severity", "Suppressed", "audit"]
