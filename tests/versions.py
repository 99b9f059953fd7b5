"""The server versions that everything is tested with: each must be pinned in src/jetkeep/servers.txt."""

VERSIONS = ("2.10.26", "2.11.11", "2.12.8", "2.14.6", "2.15.1")
NEWEST = VERSIONS[-1]
