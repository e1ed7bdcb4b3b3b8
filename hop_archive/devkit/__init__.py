"""Servers, sample alerts and programs for development, the demo and tests: what a deployment never needs."""
