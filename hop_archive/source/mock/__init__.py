"""A mock of a Kafka cluster that keeps the whole contract, in memory or in a directory."""
