"""Getting it back: messages onto Kafka, and the catalog out of the store."""
