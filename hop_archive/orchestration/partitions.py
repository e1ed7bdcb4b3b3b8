"""Partition keys: one a topic, added as topics appear, never removed (what was archived stays)."""

from __future__ import annotations

import dagster as dg

topics = dg.DynamicPartitionsDefinition(name="topics")
