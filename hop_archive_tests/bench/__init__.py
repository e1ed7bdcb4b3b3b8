"""Rates measured side by side in one run: the raw parts, the archive on top of them, and what the goals are."""
