"""Putting archived messages back on Kafka: asked for, planned, checked beforehand, written, and compared afterwards."""
