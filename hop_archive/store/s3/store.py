"""A store behind an S3 API: AWS, or a server that speaks it."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    GenericError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import S3Store as Client
from pydantic import SecretStr

from hop_archive.errors import (
    ConfigurationError,
    ForbiddenError,
    HopArchiveError,
    ObjectMissingError,
    is_panic,
)
from hop_archive.model.conditions import StoreCondition
from hop_archive.model.keys import OWN_FOLDER
from hop_archive.model.wording import said
from hop_archive.store.coalesce import Span, cut, spans
from hop_archive.store.protocol import Created, Extent, NewObject, ObjectInfo, is_legal, legal
from hop_archive.store.s3.condition import ask_condition
from hop_archive.store.s3.credentials import KeyProvider, renewed_keys, session, stated_keys
from hop_archive.store.s3.diagnosis import (
    PROBE_TIMEOUT_S,
    Answer,
    BucketAddress,
    by_answer,
    diagnose,
    forbidden,
    overwrites,
    unavailable,
    without_credentials,
)
from hop_archive.store.s3.read_ahead import Fetched, ReadAhead, pages_ahead

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import S3Config

MAX_AHEAD_BYTES = 64 * 2**20
"""Bound on bytes that were fetched, or asked for, but not yet taken."""

_MANY = 1_000
"""Retries are bounded by time: ten, obstore's default, are over after 1.6 s, 2026-11-23."""

_PAUSES_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Between attempts to create an object, beyond those that obstore makes by itself."""

_TOPIC_FOLDERS = frozenset({"", "segments/"})
"""Folders whose entries are named after topics; see ``S3Store.listing``."""

_YEAR_OF_OWN_NAME = re.compile(rf"{OWN_FOLDER}-?\d+/")
"""Messages of a topic that is called as the archive's own folder is."""

_CLIENT_ERRORS = (BaseError, OSError)
"""obstore raises ``FileNotFoundError`` for what is not there, and its own classes otherwise."""


class S3Store:
    """Objects in one bucket. Opening it does nothing; the first call connects. Thread-safe.

    Nothing is overwritten: each put is conditional (``If-None-Match: *``), which the server has to honour. Whether it does is tried
    with the first object that is created (``_create_first``): one that does not is refused.

    Args:
        name: The stanza's name.
        bucket: The bucket, which has to exist.
        endpoint: ``http(s)://host:port``; empty: AWS.
        region: Region that requests are signed for; empty: ``us-east-1``.
        prefix: Stands before each key, with a ``/`` between.
        access_key: None: the default AWS chain (profile, environment, task or instance role), renewed as it expires, and
            gone through anew when the keys that it gave are refused.
        secret_key: Goes with ``access_key``.
        profile: Without keys: the profile that supplies them; empty: the default chain says which, if any.
        concurrency: Bound on puts in flight, and likewise on gets.
        deleting_allowed: Whether ``delete`` deletes.
        timeout_s: Bound on one request, body included: a large object has to get through in this time.
        retry_s: For how long what may pass (5xx, a refused or broken connection) is tried again.
    """

    def __init__(
        self,
        name: str,
        *,
        bucket: str,
        endpoint: str = "",
        region: str = "us-east-1",
        prefix: str = "",
        access_key: str | None = None,
        secret_key: SecretStr | str | None = None,
        profile: str = "",
        concurrency: int = 64,
        deleting_allowed: bool = False,
        timeout_s: float = 30.0,
        retry_s: float = 30.0,
    ) -> None:
        self._place = BucketAddress(name, bucket, endpoint, region or "us-east-1")
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._access_key = access_key
        self._secret_key = SecretStr(secret_key) if isinstance(secret_key, str) else secret_key
        self._profile = profile
        self._concurrency = concurrency
        self._deleting_allowed = deleting_allowed
        self._timeout_s = timeout_s
        self._retry_s = retry_s
        self.created = 0
        self._lock = threading.Lock()
        self._opened: Client | None = None
        self._unsendable: HopArchiveError | None = None
        self._is_proven = False
        """Whether the server was seen to refuse a put where an object stands."""
        self._pools: dict[str, ThreadPoolExecutor] = {}

    @property
    def name(self) -> str:
        return self._place.stanza

    @property
    def bucket(self) -> str:
        return self._place.bucket

    def check(self) -> None:
        with self._explained():
            # Short of patience, whatever the stanza's: one attempt, then one by `diagnose`.
            client = self._connect(timeout_s=PROBE_TIMEOUT_S, retries=0)
            next(iter(obstore.list(client, self._prefix or None)), None)

    def create(self, objects: Sequence[NewObject]) -> Sequence[Created]:
        """After an error, up to ``concurrency`` puts may still be under way; each takes effect whole or not at all."""
        for new in objects:
            legal(new.key)
        try:
            return self._create(objects)
        except ForbiddenError:
            # With keys that were asked for anew; what was created is found the same.
            return self._create(objects)

    def _create(self, objects: Sequence[NewObject]) -> Sequence[Created]:
        todo = deque(enumerate(objects))
        results: dict[int, Created] = {}
        with self._explained():
            client, pool = self._client(), self._pool("put")
            while todo and not self._is_proven:
                index, new = todo.popleft()
                results[index] = self._create_first(client, self._prefix + new.key, new.body)
                with self._lock:
                    self.created += 1
            # Threads rather than asyncio: 150 us of CPU a put against 230 us, 2026-11-23, obstore 0.12.1, and no
            # slower when another thread of the process is busy. Each takes the next until none is left.
            try:
                workers = [
                    pool.submit(self._create_in_turn, client, todo, results)
                    for _ in range(min(self._concurrency, len(todo)))
                ]
                for worker in as_completed(workers):
                    worker.result()
            finally:
                todo.clear()  # so that the other threads stop when one has failed, or could not be had
        return [results[index] for index in range(len(objects))]

    def fetch(self, extents: Iterable[Extent]) -> Iterator[bytes]:
        """Neighbouring extents of an object are read by one request.

        At most ``concurrency`` requests and ``MAX_AHEAD_BYTES`` are ahead of what was taken, or one object when it is
        larger than that.
        """
        ahead = ReadAhead(
            self._read, self._pool("get"), max_requests=self._concurrency, max_bytes=MAX_AHEAD_BYTES
        )
        try:
            for span, data in ahead.run(spans(extents)):
                yield from cut(span, data, str(self._place), self.bucket)
        except _ReadError as failed:
            raise self._reason(failed.error, missing=failed.key) from failed.error

    def etag(self, key: str) -> str:
        with self._explained(missing=key):
            return obstore.head(self._client(), self._prefix + legal(key))["e_tag"] or ""

    def listing(self, prefix: str = "", start_after: str = "") -> Iterator[ObjectInfo]:
        """One request a topic more than the pages take.

        S3 lists in byte order, but SeaweedFS, which people run in production too, goes folder by folder: all of ``a/``
        before ``a-b/``. Only topic names have such characters before ``/``, so folders of topics are gone through in byte
        order here, and what is below them is listed as it comes.
        """
        with self._explained():
            # By the page: a step of a generator for each key would cost as much as the listing itself.
            for page in self._walk(prefix[: prefix.rfind("/") + 1], prefix, start_after):
                yield from [info for info in page if info.key.startswith(prefix) and info.key > start_after]

    def delete(self, keys: Collection[str]) -> None:
        """A thousand a request."""
        if not self._deleting_allowed:
            raise ForbiddenError(
                f"{self._place} does not allow deleting; {len(keys)} objects were to be deleted.",
                remedy="Set deleting_allowed in its stanza if that is really wanted.",
                **self._place.facts,
            )
        paths = [self._prefix + legal(key) for key in keys]
        if not paths:
            return
        # boto3 deletes the first again: a refusal to delete is no error of the bulk request, but of each object.
        with self._explained(lambda client: client.delete_object(Bucket=self.bucket, Key=paths[0])):
            obstore.delete(self._client(), paths)

    def condition(self) -> StoreCondition:
        """Takes 10 s at most."""
        self.check()
        return ask_condition(self._second_client(), self.bucket, self._prefix)

    def close(self) -> None:
        """Let go of threads and connections; a later call opens new ones."""
        with self._lock:
            pools, self._pools, self._opened = self._pools, {}, None
        for pool in pools.values():
            pool.shutdown(wait=False, cancel_futures=True)

    # Connecting

    def _client(self) -> Client:
        with self._lock:
            if self._opened is None:
                self._opened = self._connect(self._timeout_s, _MANY)
            return self._opened

    def _forget(self, client: Client | None) -> None:
        """Connect anew from the next call on, if that is the client still. Calls under way keep the one that they have."""
        with self._lock:
            if self._opened is client:
                self._opened = None

    def _connect(self, timeout_s: float, retries: int) -> Client:
        if self._access_key is not None and self._secret_key is not None:
            provider = stated_keys(self._access_key, self._secret_key.get_secret_value())
        else:
            provider = self._keys_of_chain()
        # Whatever the stanza says is said here, even where it is the default: obstore takes what is left out from
        # AWS_* variables, and those for an endpoint, a session token or conditional_put would be fatal.
        settings: S3Config = {
            "region": self._place.region,
            "conditional_put": "etag",
            "skip_signature": False,
            # The hash that the signature has anyway: buckets that lock what is put take nothing without.
            "checksum_algorithm": "SHA256",
        }
        if self._place.endpoint:
            settings["endpoint"] = settings["aws_endpoint_url_s3"] = self._place.endpoint
        return Client(
            self.bucket,
            config=settings,
            client_options={
                "allow_http": self._place.endpoint.startswith("http://"),
                "connect_timeout": timedelta(seconds=min(5.0, timeout_s)),
                "timeout": timedelta(seconds=timeout_s),
            },
            retry_config={
                "max_retries": retries,
                "retry_timeout": timedelta(seconds=self._retry_s),
                "backoff": {
                    "init_backoff": timedelta(milliseconds=100),
                    "max_backoff": timedelta(seconds=5),
                    "base": 2,
                },
            },
            credential_provider=self._sendable(provider),
        )

    def _sendable(self, provider: KeyProvider) -> KeyProvider:
        """``provider``, but for keys that cannot be sent: obstore 0.12 panics over a line end in one."""

        def checked() -> Any:
            keys = provider()
            for name in ("access_key_id", "secret_access_key", "token"):
                value = keys[name] or ""
                if value != value.strip() or not value.isprintable():
                    self._unsendable = forbidden(
                        self._place, f"{name} holds a line end or a blank, which no key has"
                    )
                    raise self._unsendable
            self._unsendable = None
            return keys

        return checked

    def _keys_of_chain(self) -> KeyProvider:
        from botocore.exceptions import BotoCoreError

        try:
            return renewed_keys(self._profile)
        except BotoCoreError as error:
            failed = error
        # Outside of the block: its text may have what a credential process wrote, and stays out of every log.
        raise without_credentials(self._place, failed)

    def _pool(self, purpose: str) -> ThreadPoolExecutor:
        with self._lock:
            if purpose not in self._pools:
                self._pools[purpose] = ThreadPoolExecutor(self._concurrency, f"{self.name}-{purpose}")
            return self._pools[purpose]

    # Errors

    @contextmanager
    def _explained(self, again: Callable[[Any], Any] | None = None, missing: str = "") -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            if isinstance(error, _CLIENT_ERRORS) or is_panic(error):
                raise self._reason(error, again, missing) from error
            raise

    def _reason(
        self, error: BaseException, again: Callable[[Any], Any] | None = None, missing: str = ""
    ) -> HopArchiveError:
        """Return what stands behind an error of obstore's, by asking the service again or else by what it said.

        Where the credentials do, the next call asks for new ones: those may have ended, or others may be valid by now.
        """
        if is_panic(error):
            return unavailable(self._place, f"the client (obstore) failed by itself, {said(error)}")
        client = self._opened
        reason = self._unsendable or diagnose(self._place, self._second_client, again)
        if reason is None and isinstance(error, FileNotFoundError) and missing:
            return ObjectMissingError(
                f"{self._place}: there is no object {missing}.", object_key=missing, bucket=self.bucket
            )
        if reason is None and isinstance(error, AlreadyExistsError):
            return unavailable(
                self._place, "it refused a key as taken, again and again, under which nothing stands"
            )
        reason = reason or by_answer(self._place, error, missing)
        if isinstance(reason, ForbiddenError):
            self._forget(client)
        return reason

    def _second_client(self) -> Any:
        from botocore.config import Config

        return session(self._profile).client(
            "s3",
            aws_access_key_id=self._access_key,
            aws_secret_access_key=self._secret_key.get_secret_value() if self._secret_key else None,
            endpoint_url=self._place.endpoint or None,
            region_name=self._place.region,
            config=Config(
                connect_timeout=PROBE_TIMEOUT_S,
                read_timeout=PROBE_TIMEOUT_S,
                retries={"total_max_attempts": 1},
                s3={"addressing_style": "path"},
            ),
        )

    # Creating

    def _create_in_turn(
        self, client: Client, todo: deque[tuple[int, NewObject]], results: dict[int, Created]
    ) -> None:
        while todo:
            try:
                index, new = todo.popleft()
            except IndexError:
                return  # another thread took the last one
            results[index] = self._create_one(client, self._prefix + new.key, new.body)
            with self._lock:
                self.created += 1

    def _create_first(self, client: Client, path: str, body: bytes) -> Created:
        """Create an object by a server that is not known to honour conditions; other bytes that stand there are not touched.

        What it took is put again, the same bytes: a put that has to be refused, and that harms nothing where it is not. It takes no
        right but those to create, and leaves nothing but the object itself.

        Raises:
            UnsupportedError: It took that, too: what stands can be overwritten.
        """
        if _compared(client, path, body) is Created.OTHER:
            return Created.OTHER
        created = self._create_one(client, path, body)
        with suppress(AlreadyExistsError):  # refused, and not to be read yet
            if created is Created.NEW and self._create_one(client, path, body) is Created.NEW:
                raise overwrites(self._place)
        self._is_proven = True
        return created

    def _create_one(self, client: Client, path: str, body: bytes) -> Created:
        give_up = time.monotonic() + self._retry_s
        for pause_s in _PAUSES_S:
            try:
                if (result := _put(client, path, body)) is not None:
                    return result
            except GenericError as error:
                # obstore does not repeat a conditional put that was not answered in time: it can't know what became
                # of it. We can compare.
                if time.monotonic() > give_up or Answer.of(error).is_final:
                    raise
            time.sleep(pause_s)
        obstore.put(client, path, body, mode="create", use_multipart=False)
        return Created.NEW

    # Fetching

    def _read(self, span: Span, room_bytes: int | None) -> Fetched:
        """Read a span in a thread of the pool; the error waits there for the span's turn, unexplained until then."""
        client, path = self._client(), self._prefix + legal(span.key)
        try:
            try:
                return self._read_patiently(client, path, span, room_bytes)
            except (PermissionDeniedError, UnauthenticatedError):
                self._forget(client)
                return self._read_patiently(self._client(), path, span, room_bytes)
        except BaseException as error:
            if isinstance(error, _CLIENT_ERRORS) or is_panic(error):
                raise _ReadError(span.key, error) from error
            raise

    def _read_patiently(self, client: Client, path: str, span: Span, room_bytes: int | None) -> Fetched:
        began = time.monotonic()
        try:
            return _get(client, path, span, room_bytes)
        except GenericError:
            # A range wholly behind the object's end, or a connection that broke within the body.
            if span.stop is not None and obstore.head(client, path)["size"] <= span.start:
                return Fetched(memoryview(b""), 0)
            if time.monotonic() - began > self._retry_s / 2:
                raise  # obstore has been patient enough: one body in pieces is asked for again until then
            return _get(client, path, span, room_bytes)

    # Listing

    def _walk(self, folder: str, prefix: str, start_after: str) -> Iterator[list[ObjectInfo]]:
        # What the archive keeps for itself has folders of topics at several depths, and few objects.
        is_own = folder.startswith(OWN_FOLDER) and not _YEAR_OF_OWN_NAME.match(folder)
        if folder not in _TOPIC_FOLDERS and not is_own:
            yield from self._flat(folder, prefix, start_after)
            return
        found = obstore.list_with_delimiter(self._client(), self._prefix + folder or None)
        folders = [f"{path[len(self._prefix) :]}/" for path in found["common_prefixes"]]
        entries = [
            *((info.key, info) for info in self._infos(found["objects"])),
            *((key, None) for key in folders),
        ]
        for key, info in sorted(entries, key=itemgetter(0)):
            if info is not None:
                yield [info]
            elif key.startswith(prefix) and (key > start_after or start_after.startswith(key)):
                yield from self._walk(key, key, start_after)

    def _flat(self, folder: str, prefix: str, start_after: str) -> Iterator[list[ObjectInfo]]:
        last = ""
        bound = _lower_bound(folder, prefix, start_after)
        offset = self._prefix + bound if bound else None
        pages = obstore.list(self._client(), self._prefix + folder or None, offset=offset, chunk_size=1000)
        for page in map(self._infos, pages_ahead(pages)):
            if not (page[0].key > last and page == sorted(page)):
                keys = [last, *(info.key for info in page)]
                before, after = next(pair for pair in pairwise(keys) if pair[0] >= pair[1])
                raise ConfigurationError(
                    f"{self._place} listed {after} after {before}, which is not byte order.",
                    remedy="Objects that others put there, with names such as a/ beside a-b/, may be the cause: list a "
                    "folder without them, or use a server that lists as S3 does.",
                    **self._place.facts,
                )
            yield page
            last = page[-1].key
            # No key that starts with the prefix can follow, in byte order or folder by folder.
            entry, rest = last[len(folder) :].partition("/")[0], prefix[len(folder) :]
            if entry > rest and not entry.startswith(rest):
                return

    def _infos(self, page: Sequence[ObjectMeta]) -> list[ObjectInfo]:
        begin = len(self._prefix)
        return [
            ObjectInfo(meta["path"][begin:], meta["size"], int(meta["last_modified"].timestamp() * 1000))
            for meta in page
        ]


class _ReadError(Exception):
    """Reading this key failed, with obstore's error."""

    def __init__(self, key: str, error: BaseException) -> None:
        super().__init__(key)
        self.key = key
        self.error = error


def _put(client: Client, path: str, body: bytes) -> Created | None:
    """Create an object if its key is free; None when the key was taken and yet nothing stands there."""
    try:
        obstore.put(client, path, body, mode="create", use_multipart=False)
    except AlreadyExistsError:
        # So it is also after a put of ours whose answer was lost, and when AWS says 409 ConditionalRequestConflict:
        # another put is under way. Only what stands there tells.
        return _compared(client, path, body)
    return Created.NEW


def _compared(client: Client, path: str, body: bytes) -> Created | None:
    """Tell whether the same bytes stand there, or others; None where nothing does."""
    try:
        found = obstore.get(client, path)
        same = found.meta["size"] == len(body) and bytes(found.bytes()) == body
    except FileNotFoundError:
        return None
    return Created.SAME if same else Created.OTHER


def _get(client: Client, path: str, span: Span, room_bytes: int | None) -> Fetched:
    if span.stop is None:
        found = obstore.get(client, path)
        size_bytes = found.meta["size"]
        if room_bytes is not None and size_bytes > room_bytes:
            return Fetched(None, size_bytes)
        return Fetched(memoryview(found.bytes())[span.start :], size_bytes)
    if span.start == span.stop:
        obstore.head(client, path)  # S3 knows no empty range; a missing object is an error all the same
        return Fetched(memoryview(b""), 0)
    data = memoryview(obstore.get_range(client, path, start=span.start, end=span.stop))
    return Fetched(data, len(data))


def _lower_bound(folder: str, prefix: str, start_after: str) -> str | None:
    """Return a key that is below all that are wanted, and near them; None when the folder's beginning will do.

    Never the name of a folder: SeaweedFS starts after ``a`` behind all of ``a/``. Nor one that obstore would change.
    """
    bound = max(prefix, start_after)
    while bound and bound[-1] <= "/":
        bound = bound[:-1]
    bound = bound[:-1]
    return bound if len(bound) > len(folder) and bound[-1] != "/" and is_legal(bound) else None
