"""Archives every message of Hopskotch's public Kafka topics, bit for bit, in S3 and Postgres."""
