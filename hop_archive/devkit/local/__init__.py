"""Real servers for development, the demo and the tests: Kafka's protocol, Postgres and S3, from Python packages.

Nothing here is for production, and nothing outside ``local`` and its command group depends on it.
"""
