"""Capture: take streams off a server, exactly, changing nothing there."""
