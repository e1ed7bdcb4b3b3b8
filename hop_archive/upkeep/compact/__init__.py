"""Many small objects become few large ones."""
