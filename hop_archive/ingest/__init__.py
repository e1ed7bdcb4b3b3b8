"""From Kafka into store and catalog: what there is to do, reading it, deciding what it is, and writing it."""
