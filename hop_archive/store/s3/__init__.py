"""A store behind an S3 API."""
