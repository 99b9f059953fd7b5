"""jetkeep: backup and disaster recovery for NATS JetStream, proven by restoring."""

__version__ = "0.1.0"
