"""Topics side by side: what the source has, what the policy says of it, and what is archived. Changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hop_archive.archive import Archive
from hop_archive.errors import ConfigurationError, UnavailableError
from hop_archive.model.topics import PATTERN_RULE, is_pattern, matches
from hop_archive.read.topic_facts import Facts, TopicState, gather

INTERNAL = "__*"
"""Kafka's own topics: left out of reports unless somebody asks for them."""


def report_topics(
    archive: Archive, patterns: Sequence[str] = (), *, internal: bool = False, with_gaps: bool = False
) -> Facts:
    """Look at every topic of the source and of the catalog; of one that is not archived, nothing lags or is unrecorded.

    Args:
        archive: What to look at.
        patterns: Only topics that one of these names or globs means; empty: all.
        internal: Whether to report Kafka's own topics, too.
        with_gaps: Whether to list holes and lost offsets; reads the ledger of topics that lack some.

    Raises:
        ConfigurationError: A pattern is none.
        UnavailableError: The catalog does not answer.
    """
    for pattern in patterns:
        if not is_pattern(pattern):
            raise ConfigurationError(f"Wanted {PATTERN_RULE}, found {pattern!r}.", pattern=pattern)
    # Those that are known, too: a topic that may not be described is not listed.
    names, unasked = {summary.topic for summary in archive.catalog.summaries()}, ""
    try:
        found = archive.source.topics()
        names |= {*found, *found.untold}
    except UnavailableError as error:
        archive.catalog.check()  # Where it is the catalog that does not answer, that is what to say.
        unasked = str(error)
    chosen = [
        name
        for name in sorted(names)
        if (internal or not matches(name, (INTERNAL,))) and (not patterns or matches(name, patterns))
    ]
    facts = gather(archive, chosen, unasked=unasked, with_coverage=True, with_gaps=with_gaps)
    judged = (
        fact if fact.state is TopicState.ARCHIVED else replace(fact, lag=None, unrecorded=None)
        for fact in facts.topics
    )
    return replace(facts, topics=tuple(judged))
