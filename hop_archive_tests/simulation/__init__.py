"""Deterministic simulation: processes of the archive, interleaved call by call, with faults, over mocks; then judged.

A ``History`` says all that happens, as values; run again, it happens again. What fails is shrunk to what it takes.
``python -m hop_archive_tests.simulation --seconds 60`` runs histories of one seed after another.
"""
