"""Where rows go: the Postgres catalog, or a mock of it that obeys the same contract."""
