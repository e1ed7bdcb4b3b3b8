"""Who archives what, in a mock."""

from __future__ import annotations

import datetime
from collections.abc import Collection

from hop_archive.catalog.mock.session import MockSession, Tables
from hop_archive.catalog.records import Claim, Share
from hop_archive.catalog.sharing import fair_share, held_logs, share_of
from hop_archive.model.slices import PartitionLog


class MockClaims(MockSession):
    """The part of a mock catalog that says who archives what."""

    def claim_logs(self, holder: str, wanted: Collection[PartitionLog], lease_s: float) -> Share:
        wanted = set(wanted)
        with self._state.change() as tables:
            self._renew(tables, holder, lease_s)
            kept = [c for c in _standing(tables) if c.holder != holder]
            was = held_logs(holder, tables.claims)
            own = [Claim(at, holder, at in was) for at in wanted]
            claims = [c for c in kept if c.partition_log in wanted] + own
            mine = fair_share(holder, claims)
            tables.claims = kept + [c._replace(held=c.partition_log in mine) for c in own]
        return share_of(holder, mine, claims)

    def renew_claims(self, holder: str, lease_s: float) -> bool:
        with self._state.change() as tables:
            now = self._clock()
            if tables.archivers.get(holder, now) <= now:
                return True
            self._renew(tables, holder, lease_s)
            claims = _standing(tables)
            own = {c.partition_log for c in claims if c.holder == holder}
            claims = [c for c in claims if c.partition_log in own]
            return not held_logs(holder, claims) <= fair_share(holder, claims)

    def drop_claims(self, holder: str) -> None:
        with self._state.change() as tables:
            tables.archivers.pop(holder, None)
            tables.claims = _standing(tables)

    def _renew(self, tables: Tables, holder: str, lease_s: float) -> None:
        now = self._clock()
        tables.archivers = {name: until for name, until in tables.archivers.items() if until > now}
        tables.claims = _standing(tables)
        tables.archivers[holder] = now + datetime.timedelta(seconds=lease_s)


def _standing(tables: Tables) -> list[Claim]:
    return [claim for claim in tables.claims if claim.holder in tables.archivers]
