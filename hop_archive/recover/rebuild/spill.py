"""What was found of one topic, in a file of SQLite's: sorted there, since it need not fit into memory.

The file outlives the process that filled it: objects that it has are not read again.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import uuid
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from hop_archive.catalog.records import COLUMNS, LATER_COLUMNS, Row
from hop_archive.errors import ConfigurationError, ConflictError
from hop_archive.model.slices import PartitionLog, Slice
from hop_archive.recover.rebuild.evidence import Evidence
from hop_archive.store.protocol import ObjectInfo

_CACHE_KIB = 64 * 1024

_KINDS = {"text": "TEXT", "uuid": "BLOB", "bytea": "BLOB"}
"""SQLite's names for what is no whole number."""
_NULL = LATER_COLUMNS | {"generation", "position"}
_COLUMNS = [name for name in COLUMNS if name != "topic"]  # a file is of one topic
_UUID = _COLUMNS.index("uuid")
_FLAGS = [number for number, name in enumerate(_COLUMNS) if COLUMNS[name] == "bool"]
_FOUND = ", ".join(f'found."{name}"' for name in _COLUMNS)

_SCHEMA = f"""
    CREATE TABLE IF NOT EXISTS objects (
        key TEXT PRIMARY KEY, size INTEGER NOT NULL, modified INTEGER NOT NULL, attempt INTEGER NOT NULL,
        generation INTEGER, partition INTEGER, start INTEGER, stop INTEGER, problems INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS found (
        id INTEGER PRIMARY KEY, {
    ", ".join(
        f'"{name}" {_KINDS.get(COLUMNS[name], "INTEGER")} {"" if name in _NULL else "NOT NULL"}'
        for name in _COLUMNS
    )
}, collided BLOB, suppressed TEXT
    );
    CREATE INDEX IF NOT EXISTS found_key ON found (key);
    CREATE INDEX IF NOT EXISTS found_place ON found (partition, "offset");
"""

_ADD = f"""
    INSERT INTO found ({", ".join(f'"{name}"' for name in _COLUMNS)}, collided, suppressed)
    VALUES (?{", ?" * (len(_COLUMNS) + 1)})
"""  # noqa: S608 (put together from constants)
"""By name, for a file of an earlier version has its columns in another order."""
_ADD_OBJECT = "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"

_SAME = (
    'one.partition = other.partition AND one."offset" = other."offset" AND one.timestamp = other.timestamp'
)
_ADOPT_GENERATION = f"""
    UPDATE found AS one SET generation = (
        SELECT min(other.generation) FROM found AS other
        WHERE {_SAME} AND one.digest = other.digest AND other.generation IS NOT NULL)
    WHERE one.generation IS NULL AND one.digest <> x''
"""  # noqa: S608 (put together from constants)
"""A document alone of a message that a segment has too: the segment's name says which generation of the topic it is of."""

_FORGET_GENERATIONS = """
    UPDATE found SET generation = NULL WHERE key IN (SELECT key FROM objects WHERE generation IS NULL)
"""

_UNPLACED = """
    SELECT one.id, one.partition, one."offset", one.timestamp, one.digest, modified, (
        SELECT group_concat(DISTINCT other.generation) FROM found AS other
        WHERE other.partition = one.partition AND other."offset" = one."offset" AND other.generation IS NOT NULL)
    FROM found AS one JOIN objects USING (key)
    WHERE one.generation IS NULL AND digest <> x''
    ORDER BY one.partition, one."offset", modified, one.timestamp, one.digest
"""

_PLACE = """
    UPDATE found SET generation = placements.generation FROM placements WHERE placements.id = found.id;
    DROP TABLE placements;
"""

_CHOOSE = """
    CREATE TABLE chosen AS
    SELECT id, generation, partition, "offset", uuid, digest, key, row_number() OVER (
        PARTITION BY generation, partition, "offset"
        ORDER BY digest <> content, suppressed IS NULL, collided IS NULL, recent) AS rank
    FROM (
        SELECT found.*, row_number() OVER place AS recent, first_value(digest) OVER place AS content
        FROM found JOIN objects USING (key) WHERE found.generation IS NOT NULL
        WINDOW place AS (
            PARTITION BY found.generation, found.partition, found."offset"
            ORDER BY suppressed IS NULL, modified DESC, attempt DESC, key DESC, frame, position));
    CREATE UNIQUE INDEX chosen_place ON chosen (generation, partition, "offset", rank);
    CREATE INDEX chosen_uuid ON chosen (uuid) WHERE rank = 1;
"""
"""Of several documents in one place the first is taken: a tombstone before all, else the last that was stored; but of one
message that under the archive's UUID, if there is one: its publisher's was in use, though a catalog begun anew did not know it."""

_OTHERS = """
    SELECT other.key, other.uuid, other.digest = first.digest, first.key
    FROM chosen AS other JOIN chosen AS first USING (generation, partition, "offset")
    WHERE other.rank > 1 AND first.rank = 1 ORDER BY generation, partition, "offset", other.rank
"""

_ROWS = f"""
    SELECT {_FOUND}, collided, suppressed, first.generation, first.partition, first."offset", first.digest FROM chosen JOIN found USING (id)
    LEFT JOIN chosen AS first ON first.rowid = (
        SELECT rowid FROM chosen AS same WHERE same.uuid = found.uuid AND same.rank = 1
        ORDER BY generation, partition, "offset" LIMIT 1)
    WHERE chosen.rank = 1 AND chosen.generation = ? AND chosen.partition = ? ORDER BY chosen."offset"
"""  # noqa: S608 (likewise)

_CLAIMS = """
    SELECT start, stop FROM objects WHERE generation = ? AND partition = ? AND problems = 0 ORDER BY start, stop
"""

_PARTITION_LOGS = """
    SELECT generation, partition FROM chosen UNION
    SELECT generation, partition FROM objects WHERE generation IS NOT NULL AND problems = 0 ORDER BY 1, 2
"""


def file_name(topic: str) -> str:
    """The name of a topic's file: by a hash, for a topic's name may be as long as a file's, which has an ending too."""
    return f"{hashlib.blake2b(topic.encode(), digest_size=16).hexdigest()}.rebuild"


@contextlib.contextmanager
def usable(path: Path) -> Iterator[None]:
    """Work with a file of SQLite's; what is wrong with it becomes an error of ours.

    Raises:
        ConflictError: Another process is at work with it.
        ConfigurationError: It cannot be written there, or is no such file.
    """
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
            raise ConflictError(
                f"Another rebuild is at work in {path.parent}.", remedy="Let it end, or name another folder."
            ) from error
        raise ConfigurationError(
            f"{path} cannot be used: {error}.",
            remedy="See whether it may be written, and has room.",
            path=str(path),
        ) from error
    except sqlite3.DatabaseError as error:
        raise ConfigurationError(
            f"{path} is damaged: {error}.", remedy="Delete it: it is made again.", path=str(path)
        ) from error


class Placed(NamedTuple):
    """A message that is to have a row in its place, unless an earlier place has the same UUID.

    Attributes:
        collided_with: Its publisher's UUID, where it is archived under another.
        suppressed: Why its content was removed; None where it was not.
        first: Generation, partition and offset of the first message of this UUID.
        is_same: Whether that one is the same message.
    """

    row: Row
    collided_with: uuid.UUID | None
    suppressed: str | None
    first: tuple[int, int, int]
    is_same: bool

    @property
    def is_first(self) -> bool:
        """Whether it is itself the first of its UUID."""
        return self.first == (self.row.generation, self.row.partition, self.row.offset)


class Unplaced(NamedTuple):
    """A document that does not say which generation of its topic it is of.

    Attributes:
        id: Its number in the file.
        place: Partition and offset.
        content: Timestamp and digest: what else must be the same for it to be the same message.
        taken: Generations in which a segment has other content in that place.
    """

    id: int
    place: tuple[int, int]
    content: tuple[int, bytes]
    modified_ms: int
    taken: frozenset[int]


class Spill:
    """The file of one topic."""

    def __init__(self, path: Path, topic: str) -> None:
        self._path = path
        self._topic = topic
        self._streams: weakref.WeakSet[sqlite3.Cursor] = weakref.WeakSet()

    def __enter__(self) -> Self:
        self._connection = sqlite3.connect(self._path, timeout=0, isolation_level=None)
        try:
            self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            # A killed process leaves the file whole all the same; after a power cut it is better begun anew anyway.
            self._connection.execute("PRAGMA synchronous = OFF")
            self._connection.execute("PRAGMA journal_mode = TRUNCATE")
            self._connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            self._connection.executescript(_SCHEMA)
            # A file of an earlier version lacks what came later.
            there = {name for _, name, *_ in self._connection.execute("PRAGMA table_info(found)")}
            for name in (name for name in _COLUMNS if name in LATER_COLUMNS - there):
                self._connection.execute(f'ALTER TABLE found ADD COLUMN "{name}" INTEGER')
        except BaseException:
            self._connection.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        # One that a traceback still holds on to would keep the connection, and the lock of the file.
        for cursor in self._streams:
            cursor.close()
        self._connection.close()

    def remove(self) -> None:
        """Delete the file; what was found is in the catalog."""
        self._connection.close()
        for path in (self._path, self._path.with_name(f"{self._path.name}-journal")):
            path.unlink(missing_ok=True)

    def has(self, info: ObjectInfo) -> bool:
        """Whether the object was read before, whole."""
        found = self._connection.execute("SELECT size, modified FROM objects WHERE key = ?", [info.key])
        return bool(found.fetchone() == (info.size_bytes, info.modified_ms))

    @contextlib.contextmanager
    def adding(self) -> Iterator[None]:
        """What is added within the block is kept whole, or not at all."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def forget(self, key: str) -> None:
        """Take out what an earlier reading of the object brought."""
        self._connection.execute("DELETE FROM found WHERE key = ?", [key])

    def add(self, evidence: Evidence) -> None:
        """Take in documents of an object; those of another archiver, which have no place, are not for here."""
        values = []
        for row, collided, suppressed in evidence.found:
            cells = [*row.cells()[1:]]
            cells[_UUID] = row.uuid.bytes
            values.append((*cells, None if collided is None else collided.bytes, suppressed))
        self._connection.executemany(_ADD, values)

    def end(self, info: ObjectInfo, attempt: int, claim: Slice | None, problems: int) -> None:
        """Note that an object was read whole, what its name claims was read, and how many of its documents are not believed."""
        place = (claim.generation, claim.partition, claim.start, claim.stop) if claim else (None,) * 4
        values = (info.key, info.size_bytes, info.modified_ms, attempt, *place, problems)
        self._connection.execute(_ADD_OBJECT, values)

    def named(self) -> Sequence[PartitionLog]:
        """Those that keys of segments name."""
        named = "SELECT DISTINCT generation, partition FROM objects WHERE generation IS NOT NULL"
        return [PartitionLog(self._topic, *one) for one in self._connection.execute(named)]

    def unplaced(self) -> Iterator[Unplaced]:
        """Documents whose generation of the topic is not known, by place, in each as they were stored."""
        for number, partition, offset, timestamp, content, modified, taken in self._cursor(_UNPLACED):
            generations = frozenset(map(int, taken.split(","))) if taken else frozenset()
            yield Unplaced(number, (partition, offset), (timestamp, content), modified, generations)

    def know_generations(self) -> None:
        """Let documents that stand alone be of the generation in which a segment has the same; forget the rest."""
        self._connection.executescript(
            f"DROP TABLE IF EXISTS chosen; {_FORGET_GENERATIONS}; {_ADOPT_GENERATION}"
        )

    def place(self, generations: Iterable[tuple[int, int]]) -> None:
        """Say which generation of the topic documents are of: number in the file, and generation, of each."""
        self._connection.executescript(
            "DROP TABLE IF EXISTS placements; CREATE TABLE placements (id INTEGER PRIMARY KEY, generation INTEGER)"
        )
        self._connection.execute("BEGIN")
        self._connection.executemany("INSERT INTO placements VALUES (?, ?)", generations)
        self._connection.execute("COMMIT")
        self._connection.executescript(_PLACE)

    def choose(self) -> None:
        """Choose one document of each place; then ``rows`` and the like can be asked."""
        self._connection.execute("DROP TABLE IF EXISTS chosen")
        self._connection.executescript(_CHOOSE)

    def others(self) -> Iterator[tuple[str, uuid.UUID, bool, str]]:
        """Documents that were not chosen: key, UUID, whether the chosen one is of the same content, and its key."""
        for key, own, is_same, chosen in self._cursor(_OTHERS):
            yield key, uuid.UUID(bytes=own), bool(is_same), chosen

    def partition_logs(self) -> Sequence[PartitionLog]:
        """Those that anything is known of."""
        return [PartitionLog(self._topic, *one) for one in self._connection.execute(_PARTITION_LOGS)]

    def claims(self, partition_log: PartitionLog) -> list[tuple[int, int]]:
        """What undamaged segments say was read of a log, by ascending start; they may overlap."""
        return self._connection.execute(_CLAIMS, partition_log[1:]).fetchall()

    def rows(self, partition_log: PartitionLog) -> Iterator[tuple[int, Placed]]:
        """The chosen documents of a log, by ascending offset."""
        for found in self._cursor(_ROWS, partition_log[1:]):
            cells, (collided, suppressed, *first, digest) = [*found[: len(_COLUMNS)]], found[len(_COLUMNS) :]
            cells[_UUID] = uuid.UUID(bytes=cells[_UUID])
            for flag in _FLAGS:
                cells[flag] = bool(cells[flag])
            row = Row.of_cells([self._topic, *cells])
            collided_with = None if collided is None else uuid.UUID(bytes=collided)
            assert row.offset is not None
            yield row.offset, Placed(row, collided_with, suppressed, tuple(first), digest == row.digest)

    def _cursor(self, statement: str, values: Sequence[Any] = ()) -> Iterator[Any]:
        cursor = self._connection.cursor()
        cursor.arraysize = 1_000
        self._streams.add(cursor)
        return iter(cursor.execute(statement, values))
