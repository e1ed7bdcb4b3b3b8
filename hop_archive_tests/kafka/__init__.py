"""The tier that needs Apache Kafka itself: what a real broker does with transactions, retention, compaction and restarts."""
