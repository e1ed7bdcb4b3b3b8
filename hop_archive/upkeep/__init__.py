"""What keeps the archive true: verifying, repairing, and taking away what should not be there."""
