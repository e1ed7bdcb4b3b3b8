"""A catalog without a database, in memory or in a directory: it keeps the whole contract."""
