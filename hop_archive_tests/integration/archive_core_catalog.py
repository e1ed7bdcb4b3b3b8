"""A catalog as the archive-core package leaves it after all of its migrations, with rows; questions of the kind that
its readers ask; and its objects. Names and types are its own, for readers depend on them; the statements are ours."""

from __future__ import annotations

import uuid
from typing import Any, LiteralString

import bson
from bson.int64 import Int64

from hop_archive.catalog.records import Row
from hop_archive.model.annotations import Annotations
from hop_archive.model.document import crc32
from hop_archive.model.identity import client_uuid
from hop_archive.model.keys import object_key
from hop_archive.model.message import Message
from hop_archive.store.protocol import NewObject
from hop_archive_tests.contract.catalog_helpers import connect

SCHEMA: tuple[LiteralString, ...] = (
    """CREATE TABLE messages (
        id bigserial PRIMARY KEY, topic text NOT NULL, timestamp bigint NOT NULL, uuid uuid NOT NULL,
        size integer NOT NULL, key text NOT NULL, bucket text NOT NULL, crc32 bigint NOT NULL,
        is_client_uuid boolean NOT NULL, public boolean NOT NULL, direct_upload boolean NOT NULL,
        message_crc32 bigint NOT NULL, title text NOT NULL DEFAULT '', sender text NOT NULL DEFAULT '',
        media_type text NOT NULL DEFAULT '', file_name text NOT NULL DEFAULT '',
        originator text NOT NULL DEFAULT '', retracted boolean NOT NULL DEFAULT false,
        CONSTRAINT messages_uuid_idx UNIQUE (uuid))""",
    "CREATE INDEX messages_key_idx ON messages (key)",
    "CREATE INDEX messages_timestamp_id_idx ON messages (timestamp, id) INCLUDE (topic, public)",
    "CREATE INDEX messages_timestamp_idx ON messages (timestamp)",
    "CREATE INDEX messages_topic_idx ON messages (topic)",
    """CREATE TABLE topics (
        topic text CONSTRAINT unique_topic UNIQUE, e_timestamp bigint, l_timestamp bigint, n_messages bigint)""",
    """CREATE TABLE message_ts (
        uuid uuid NOT NULL REFERENCES messages (uuid) ON DELETE CASCADE, text_data tsvector NOT NULL,
        text_fully_indexed boolean NOT NULL)""",
    "CREATE INDEX message_ts_idx ON message_ts USING gin (text_data)",
)
# What its migrations do every time that they run, also after the catalog was adopted.
TRIGGER: tuple[LiteralString, ...] = (
    """CREATE OR REPLACE FUNCTION update_topics() RETURNS trigger LANGUAGE plpgsql AS $do$
    BEGIN
        IF TG_OP = 'DELETE' THEN
            UPDATE topics SET n_messages = n_messages - 1 WHERE topic = OLD.topic;
            RETURN OLD;
        END IF;
        UPDATE topics SET n_messages = n_messages + 1, e_timestamp = least(e_timestamp, NEW.timestamp),
            l_timestamp = greatest(l_timestamp, NEW.timestamp) WHERE topic = NEW.topic;
        IF NOT FOUND THEN
            INSERT INTO topics VALUES (NEW.topic, NEW.timestamp, NEW.timestamp, 1);
        END IF;
        RETURN NEW;
    END $do$""",
    """DO $do$ BEGIN
        IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgname = 'trigger_update_topics') THEN
            CREATE TRIGGER trigger_update_topics AFTER INSERT OR DELETE ON messages
            FOR EACH ROW EXECUTE FUNCTION update_topics();
        END IF;
    END $do$""",
)
# What somebody's service has built upon it.
NEIGHBOURS: tuple[LiteralString, ...] = (
    "CREATE TABLE schema_versions (version integer PRIMARY KEY)",
    "INSERT INTO schema_versions VALUES (5)",
    "CREATE VIEW public_messages AS SELECT * FROM messages WHERE public AND NOT retracted",
    "CREATE MATERIALIZED VIEW topic_sizes AS SELECT topic, sum(size) AS bytes FROM messages GROUP BY topic",
)
ROWS: LiteralString = """
    INSERT INTO messages (topic, timestamp, uuid, size, key, bucket, crc32, is_client_uuid, public, direct_upload,
                          message_crc32, title, sender, media_type, file_name, originator, retracted)
    SELECT topic, 1650000000000 + n * 1000, md5(topic || n)::uuid, 200 + n,
           topic || '/2022/4/15/5/' || md5(topic || n)::uuid || '.bson', 'archive', 4294967295 - n, n % 3 = 0,
           n % 5 > 0, n % 7 = 0, 4000000000 + n, 'GRB ' || n || ' Ünïcode', 'sender-' || n % 4,
           CASE WHEN n % 2 = 0 THEN 'application/json' ELSE '' END, '', 'somebody', n % 11 = 0
    FROM unnest(ARRAY['gcn.circulars', 'lvk.alerts', 'sys.test']) AS topic, generate_series(1, 40) AS n
"""
TEXTS: LiteralString = """
    INSERT INTO message_ts SELECT uuid, to_tsvector(title || ' burst from ' || sender), id % 2 = 0
    FROM messages WHERE topic = 'gcn.circulars'
"""

COLUMNS = (
    "id, topic, timestamp, uuid, size, key, bucket, crc32, is_client_uuid, public, direct_upload, message_crc32,"
    " title, sender, media_type, file_name, originator, retracted"
)
QUESTIONS: dict[str, str] = {
    "every row": f"SELECT {COLUMNS} FROM messages ORDER BY id",
    "the summary": "SELECT topic, e_timestamp, l_timestamp, n_messages FROM topics ORDER BY topic",
    "the text index": "SELECT uuid, text_data::text, text_fully_indexed FROM message_ts ORDER BY uuid",
    "one by UUID": f"SELECT {COLUMNS} FROM messages WHERE uuid = md5('lvk.alerts7')::uuid",
    "whether one exists": """
        SELECT count(*) FROM messages
        WHERE timestamp = 1650000007000 AND topic = 'lvk.alerts' AND message_crc32 = 4000000007""",
    "a page in order of time": f"""
        SELECT {COLUMNS} FROM messages WHERE public AND (timestamp, id) > (1650000010000, 3)
        ORDER BY timestamp, id LIMIT 11""",
    "the page before it": f"""
        SELECT {COLUMNS} FROM messages WHERE public AND (timestamp, id) < (1650000010000, 3)
        ORDER BY timestamp DESC, id DESC LIMIT 11""",
    "a page of some topics": f"""
        SELECT {COLUMNS} FROM messages
        WHERE (topic IN ('gcn.circulars', 'sys.test') AND public OR topic = 'lvk.alerts')
              AND timestamp >= 1650000005000 AND timestamp < 1650000020000 AND NOT retracted
        ORDER BY timestamp + 0, id""",
    "from where a topic begins": """
        SELECT count(*) FROM messages
        WHERE timestamp >= (SELECT min(e_timestamp) FROM topics WHERE topic IN ('lvk.alerts'))""",
    "a topic's share": """
        SELECT sum(n_messages) FROM topics WHERE topic IN ('lvk.alerts') UNION ALL
        SELECT sum(n_messages) FROM topics""",
    "topics with public messages": "SELECT DISTINCT topic FROM messages WHERE public ORDER BY topic",
    "alike by content": """
        SELECT max(id), topic, timestamp, message_crc32, count(*) FROM messages
        GROUP BY topic, timestamp, message_crc32 HAVING count(*) > 1""",
    "a text search": f"""
        SELECT {COLUMNS} FROM messages JOIN message_ts USING (uuid)
        WHERE text_data @@ websearch_to_tsquery('GRB 7') ORDER BY timestamp, id""",
    "what is not indexed": """
        SELECT messages.uuid FROM messages LEFT JOIN message_ts USING (uuid) WHERE message_ts.uuid IS NULL
        ORDER BY timestamp, id""",
    "where objects are": "SELECT bucket, key FROM messages WHERE id IN (3, 5, 70) ORDER BY id",
    "a view upon it": "SELECT count(*), sum(size) FROM public_messages",
    "a materialized view upon it": "SELECT topic, bytes FROM topic_sizes ORDER BY topic",
    "a table beside it": "SELECT version FROM schema_versions",
}


def make_archive_core_catalog(url: str) -> None:
    """Make its tables with 120 rows, inserted while its trigger counts them."""
    with connect(url) as connection:
        for statement in (*SCHEMA, *TRIGGER, ROWS, TEXTS, *NEIGHBOURS):
            connection.execute(statement)


def answers(url: str) -> dict[str, list[Any]]:
    """What its readers get for each of their questions."""
    with connect(url) as connection:
        return {
            what: connection.execute(question.encode()).fetchall() for what, question in QUESTIONS.items()
        }


def stored_by_archive_core(message: Message, bucket: str, *, early: bool = False) -> tuple[Row, NewObject]:
    """The row and the object that archive-core makes of a message: under a UUID by chance, if its publisher gave none.

    ``early``: as its first versions did, without the key where there is none, else with the key as text.
    """
    given = client_uuid(message.headers)
    own = given or uuid.uuid4()
    metadata: dict[str, Any] = {
        "timestamp": Int64(message.timestamp_ms),
        "headers": [list(header) for header in message.headers] or None,
        "key": message.key,
        "topic": message.topic,
    }
    if early:
        metadata |= {"key": message.key.decode()} if message.key is not None else {}
        metadata = {name: value for name, value in metadata.items() if name != "key" or value is not None}
    annotations = {
        "con_text_uuid": str(own),
        "con_is_client_uuid": given is not None,
        "con_message_crc32": crc32(message.value),
        "public": True,
        "direct_upload": False,
        "media_type": "application/x-empty",
        "title": "",
        "sender": "",
        "file_name": "",
    }
    body = bson.encode({"message": message.value, "metadata": metadata, "annotations": annotations})
    key = object_key(message.topic, message.timestamp_ms, own)
    row = Row(
        topic=message.topic,
        generation=None,
        partition=None,
        offset=None,
        timestamp_ms=message.timestamp_ms,
        timestamp_type=None,
        uuid=own,
        is_client_uuid=given is not None,
        digest=None,
        object_key=key,
        bucket=bucket,
        position=None,
        size_bytes=len(body),
        crc32=crc32(body),
        message_crc32=crc32(message.value),
        annotations=Annotations(media_type="application/x-empty"),
    )
    return row, NewObject(key, body)
