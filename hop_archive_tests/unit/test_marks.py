"""Tests on Apache Kafka are where ``make test-kafka`` looks for them: no other part leaves them out unseen."""

from __future__ import annotations

import re
from pathlib import Path

import hop_archive_tests

TESTS = Path(hop_archive_tests.__file__).parent
CHECKOUT = TESTS.parent


def test_every_test_on_kafka_is_where_make_looks_for_it() -> None:
    (places,) = re.findall(r"(?m)^ON_KAFKA := (.*)$", (CHECKOUT / "Makefile").read_text())
    looked_at = [CHECKOUT / place for place in places.split()]
    assert [place for place in looked_at if not place.exists()] == []
    marked = [path for path in TESTS.rglob("*.py") if re.search(r"mark\.(slow_)?kafka\b", path.read_text())]
    assert len(marked) > 5
    assert [p for p in marked if not any(p.is_relative_to(place) for place in looked_at)] == []
