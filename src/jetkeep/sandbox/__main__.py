"""Fetch every pinned server into the cache: what set-up runs, so that tests need no network."""

from jetkeep.sandbox.binaries import fetch_binary, find_binary, pinned_versions

for version in pinned_versions():
    find_binary(version) or fetch_binary(version)
