"""The edge to Kubernetes: looks, never changes. Needs the extra `jetkeep[kubernetes]`."""

from jetkeep.kube.cluster import Cluster

__all__ = ["Cluster"]
