"""A Kafka cluster as a source, by confluent-kafka (librdkafka)."""
