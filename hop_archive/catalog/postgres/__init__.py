"""The catalog in Postgres (14 or newer)."""
