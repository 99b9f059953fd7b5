"""The rules, in order of their ids."""

from __future__ import annotations

from jetkeep.audit.findings import Rule, Severity

_READ = "whoever reads this file, its repository's history or the cluster's ConfigMaps has the key"
_MOVE = (
    "make a new key, take this one away at its issuer, and give it as a Secret that is made outside of the repository"
)
_E, _W, _N = Severity.ERROR, Severity.WARNING, Severity.NOTE

_ALL = (
    Rule("JK001", "aws-key", _E, _READ, f"{_MOVE}; better: IRSA, without any key"),
    Rule("JK002", "gcp-key", _E, _READ, f"{_MOVE}; better: workload identity, without any key"),
    Rule("JK003", "azure-key", _E, _READ, f"{_MOVE}; better: workload identity, without any key"),
    Rule("JK004", "nats-credentials", _E, "whoever reads it is this NATS user", _MOVE),
    Rule("JK005", "age-identity", _E, "whoever reads it reads every sealed backup", "`jetkeep key rotate`, then keep the identity where backups are not made"),
    Rule("JK006", "private-key", _E, _READ, _MOVE),
    Rule("JK007", "password-in-url", _E, "URLs are logged, shown and stored; so is the password", "put user and password beside the URL, from a Secret; change the password"),
    Rule("JK008", "token", _E, _READ, _MOVE),
    Rule("JK009", "secret-in-the-open", _E, "ConfigMaps and literal environment variables are shown to everyone who may look at pods", "take it from a Secret (`valueFrom.secretKeyRef`, or `env://NAME` in jetkeep.toml)"),
    Rule("JK010", "secret-in-a-file", _W, "the values of this Secret are in a file that others copy", "make the Secret outside of the repository, or keep it encrypted there (SOPS, sealed or external secrets)"),
    Rule("JK011", "placeholder", _W, "it is applied as it stands, and the first run fails", "put the real value in its place; `--template` for files that are meant to be filled in"),
    Rule("JK012", "plaintext-endpoint", _W, "who listens on the way reads backups and credentials, or changes them", "use https:// or tls://; inside a machine or for a trial, say so in a suppression"),
    Rule("JK013", "wide-cluster-role", _W, "jetkeep needs nothing of the Kubernetes API; who takes over the pod has all of this", "take the role away, or narrow it to the verbs and names that are used"),
    Rule("JK014", "wide-cloud-policy", _E, "who takes over the machine that makes backups can destroy or read more than a backup needs", "use the policies of deploy/policies: writer, reader, expirer"),
    Rule("JK015", "wide-nats-permissions", _E, "this user can read, change and delete every stream", "include deploy/policies/nats/backup.conf (restore.conf for the day of a restore)"),
    Rule("JK016", "pod-security", _E, "the `restricted` profile refuses this pod, and a breakout reaches further", "set runAsNonRoot, seccompProfile RuntimeDefault, allowPrivilegeEscalation false, capabilities drop ALL"),
    Rule("JK017", "writable-root", _W, "who takes over the process can leave something behind in it", "set readOnlyRootFilesystem: true; jetkeep writes to its repository and /tmp only"),
    Rule("JK018", "no-resources", _W, "a backup can starve NATS on its node, or be the first to be killed", "set resources: requests of cpu and memory, a limit of memory"),
    Rule("JK019", "no-deadline", _W, "a run that hangs keeps the next ones away for ever", "set activeDeadlineSeconds on the Job; for a CronJob also startingDeadlineSeconds"),
    Rule("JK020", "overlapping-runs", _W, "Allow starts a second run beside the first, Replace kills a backup in the middle", "set concurrencyPolicy: Forbid"),
    Rule("JK021", "image-not-pinned", _W, "what runs tomorrow is not what was tried today", "name a version, or better a digest"),
    Rule("JK022", "no-retention", _W, "the repository grows until it is full, and then no backup is made", "say `keep` for each repository, and run `jetkeep expire` on a schedule"),
    Rule("JK023", "off-site-not-sealed", _W, "whoever can read the bucket reads every message", "set `encrypt-to` (for one that is sealed already, `sealed-to`)"),
    Rule("JK024", "no-alert", _W, "backups that stop are noticed on the day when one is needed", "apply deploy/monitoring, or set `[heartbeat]` or `[notifications.NAME]`"),
    Rule("JK025", "no-drill", _W, "a backup that was never restored may not restore", "run `jetkeep drill` on a schedule: a CronJob, or `[schedules.drill]`"),
    Rule("JK026", "velero-stores-nothing", _E, "Velero's file-system backup stores nothing of a volume that no running pod mounts, and says Completed", "keep it mounted by a pod that Velero is told of (deploy/velero), or exclude it and rely on a repository off-site: docs/how-to/velero.md"),
    Rule("JK027", "configuration", _E, "jetkeep refuses this configuration: no backup is made", "docs/reference/config.md lists every key"),
    Rule("JK090", "suppression-without-reason", _W, "nobody can tell later whether it still holds", "write why, after the rule's id"),
    Rule("JK091", "unused-suppression", _N, "it hides what comes next", "take it out"),
)  # fmt: skip

#: id → rule.
RULES = {rule.id: rule for rule in _ALL}
