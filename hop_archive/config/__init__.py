"""``hop_archive.toml``: read, checked, and made into sources, catalogs, stores and logs. No use case imports this."""
