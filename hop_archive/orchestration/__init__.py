"""All of Dagster, a file for each of its concepts, and nothing else: bodies read config, call a use case, report.

Only this package imports dagster. What decides or does anything is in the use cases, which know nothing of it.
"""
