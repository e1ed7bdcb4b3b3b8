"""Where messages come from: Kafka, or a mock of it that obeys the same contract."""
