"""Ways to damage a mock archive that no part of ours has, and to verify and repair it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from hop_archive.archive import Archive
from hop_archive.catalog.records import Row
from hop_archive.devkit.faults import Faults
from hop_archive.ingest.follow import catch_up
from hop_archive.model.findings import Finding
from hop_archive.model.slices import Slice
from hop_archive.store.mock import MockStore
from hop_archive.store.protocol import Extent, NewObject
from hop_archive.upkeep.repair.plan import Repair, Upstream
from hop_archive.upkeep.repair.repair import RepairResult, repair
from hop_archive.upkeep.verify.recorder import FindingsRecorder
from hop_archive.upkeep.verify.verification import Verification
from hop_archive.upkeep.verify.verify import verify
from hop_archive_tests.worlds import World, WorldLayout, awkward_world, exhausted


@dataclass
class Ruin:
    """An archive that was sound, and its backup as it was then."""

    world: World
    backup: MockStore

    # --- damage

    def rows(self, topic: str) -> list[Row]:
        return list(self.world.catalog.rows(topic))

    def body(self, key: str) -> bytes:
        (body,) = self.world.store.fetch([Extent(key)])
        return body

    def drop(self, key: str) -> None:
        self.world.store.delete([key])

    def put(self, key: str, body: bytes) -> None:
        """Overwrite, as nothing of ours can."""
        self.world.store.delete([key])
        self.world.store.create([NewObject(key, body)])

    def flip(self, row: Row, at: int = 40) -> None:
        """Flip a bit of a document, or of the checksum of the frame that it is in."""
        body = bytearray(self.body(row.object_key))
        body[(row.position or 0) + at if row.frame is None else _end(row) - 1] ^= 1
        self.put(row.object_key, bytes(body))

    def truncate(self, row: Row) -> None:
        body = self.body(row.object_key)
        self.put(row.object_key, body[: _end(row) - 1])

    def drop_row(self, row: Row) -> None:
        with self.world.catalog._state.change() as tables:
            del tables.rows[row.uuid]

    def alter(self, row: Row, **changes: object) -> None:
        with self.world.catalog._state.change() as tables:
            tables.rows[row.uuid] = row._replace(**changes)  # type: ignore[arg-type] # as given

    def drop_ledger_row(self, row: Row) -> Slice:
        """The ledger row that covers a message goes; the slice that it was of."""
        with self.world.catalog._state.change() as tables:
            for ledger in tables.ledger.values():
                for entry in ledger:
                    where = entry.slice
                    if where.partition_log == (row.topic, row.generation, row.partition) and (
                        where.start <= (row.offset or 0) < where.stop
                    ):
                        ledger.remove(entry)
                        return where
        raise AssertionError(f"no ledger row covers {row}")

    def miscount(self, row: Row) -> None:
        where = self.drop_ledger_row(row)
        with self.world.catalog._state.change() as tables:
            rows = tables.offsets(row.topic)[where.partition_log]
            copies = tables.duplicates.get(where.partition_log, [])
            archived = sum(where.start <= offset < where.stop for offset in rows)
            duplicates = sum(where.start <= one.offset < where.stop for one in copies)
            entry = replace(
                tables.ledger[where.partition_log][0],
                slice=where,
                archived=archived - 1,
                duplicates=duplicates,
                absent=len(where) - archived - duplicates + 1,
            )
            tables.ledger[where.partition_log].append(entry)

    def forget(self) -> None:
        """Kafka's retention takes all that there is."""
        with self.world.cluster.read() as state:
            ends = [(name, n, log.stable) for name, t in state.topics.items() for n, log in enumerate(t.logs)]
        for name, number, stable in ends:
            self.world.cluster.delete_records(name, number, stable)

    def replicate(self) -> None:
        """What S3's replication does: new objects are copied to the backup."""
        there = {info.key for info in self.backup.listing()}
        new = [info.key for info in self.world.store.listing() if info.key not in there]
        self.backup.create([NewObject(key, self.body(key)) for key in new])

    # --- verification and repair

    def archive(self, faults: Faults | None = None) -> Archive:
        return self.world.archive(faults)

    def verify(self, faults: Faults | None = None) -> list[Finding]:
        """Look in every direction, deep, and remember what is found."""
        archive = self.archive(faults)
        return list(verified(archive, self.backup))

    def repair(
        self, faults: Faults | None = None, *, dry_run: bool = False, backup: bool = True, source: bool = True
    ) -> list[RepairResult]:
        archive = self.archive(faults)
        copy = (faults or Faults()).wrap(self.backup, "backup") if backup else None
        asked = Repair(archive.catalog, archive.store, copy, Upstream(archive if source else None))
        return list(repair(asked, dry_run=dry_run))


def verified(archive: Archive, backup: MockStore | None = None) -> Iterator[Finding]:
    """Every direction, deep, with what is found noted and what is not seen again closed."""
    wanted = Verification(
        archive.catalog, archive.store, grace_s=0, sleep=lambda _: None, backup=backup, backup_grace_s=0
    )
    directions = ("objects", "documents", "ledger", *(("backup",) if backup is not None else ()))
    found = verify(wanted, FindingsRecorder(archive.catalog), directions)
    return (finding for finding, is_open in found if is_open)


def _end(row: Row) -> int:
    """Where the document, or its frame, ends in its object."""
    if row.frame is not None and row.frame_size is not None:
        return row.frame + row.frame_size
    return (row.position or 0) + row.size_bytes


def ruin(layout: WorldLayout, *, backup: bool = True) -> Ruin:
    """A sound archive of an awkward world, with a backup of all its objects."""
    world = awkward_world(layout)
    world.store = MockStore(deleting_allowed=True)
    exhausted(catch_up(world.archive()))
    copy = MockStore("backup", bucket="backup")
    if backup:
        copy.create(
            [NewObject(info.key, *world.store.fetch([Extent(info.key)])) for info in world.store.listing()]
        )
    return Ruin(world, copy)


def kinds(findings: Sequence[Finding]) -> list[str]:
    return sorted({one.kind.value for one in findings})
