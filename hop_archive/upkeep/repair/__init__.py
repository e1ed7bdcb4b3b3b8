"""Mends what verification found, after showing how."""
