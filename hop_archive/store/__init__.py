"""Where objects go: any S3, or a mock of it that obeys the same contract."""
