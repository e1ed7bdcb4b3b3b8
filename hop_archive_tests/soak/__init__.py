"""Soak: real servers and processes, everything killed, frozen and cut by a seeded schedule, and judged by who shares no code with it."""
