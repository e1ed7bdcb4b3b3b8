"""Messages go: rows before objects, in portions, after the plan was shown."""
