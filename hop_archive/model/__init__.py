"""What things are: messages, documents, slices, findings and the like, as values. No I/O, no client, no clock."""
