"""Why S3 refused: asks again, once, with a client that reports error codes.

obstore has one class for most failures (a refused connection, 503, a listing of a bucket that is not there,
a wrong region), and tells them apart by text only. So after a failure, and only then, boto3 asks for a
listing of one key, and its answer is translated by code. boto3 is imported only then.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

from hop_archive.errors import (
    ConfigurationError,
    ForbiddenError,
    HopArchiveError,
    MissingSettingError,
    ObjectFrozenError,
    UnavailableError,
    UnsupportedError,
)
from hop_archive.model.wording import said

PROBE_TIMEOUT_S = 3.0

_NO_BUCKET = frozenset({"NoSuchBucket", "InvalidBucketName", "404"})
_REGION = frozenset(
    {"AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect"}
)
_REDIRECTS = frozenset({301, 302, 307, 308})
_CREDENTIALS = frozenset({"ExpiredToken", "InvalidToken", "TokenRefreshRequired"})
"""What AWS answers with status 400; with 401 and 403 the status says it."""

_OF_ONE = re.compile(r"\(code: (\w+)\)$")
"""What one of several objects was refused for that were to be deleted: the request itself was answered with status 200."""

_FORBIDDEN_STATUSES = frozenset({401, 403})
_CLOCK = frozenset({"RequestTimeTooSkewed", "RequestInTheFuture", "RequestExpired"})

_FROZEN = "InvalidObjectState"
_CANNOT_STATUS = 501
_STATUS = re.compile(r"status code: (\d{3})")
_ELEMENT = re.compile(r"<(Code|Message)>([^<]*)")
_MOST_QUOTED = 20_000
"""Of obstore's text, which quotes the whole body twice."""


@dataclass(frozen=True, slots=True)
class BucketAddress:
    """Which bucket, where (an empty ``endpoint``: AWS), for whom."""

    stanza: str
    bucket: str
    endpoint: str
    region: str

    def __str__(self) -> str:
        where = self.endpoint or f"AWS, region {self.region}"
        return f"Store {self.stanza} (bucket {self.bucket} at {where})"

    @property
    def facts(self) -> dict[str, str]:
        """What errors carry."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the service said when it refused, as obstore quotes it.

    obstore 0.12 has no attributes for these: its text has the status, and then the body as it came.

    Attributes:
        status: HTTP status; 0 where there was no answer.
        code: S3's code; empty where the body had none.
        text: For messages: one line, harmless, cut.
    """

    status: int
    code: str
    text: str

    @classmethod
    def of(cls, error: BaseException) -> Answer:
        """Read it out of what obstore raised."""
        quoted = str(error)[:_MOST_QUOTED].partition("\n\nDebug source:")[0]
        status = _STATUS.search(quoted)
        element = dict(_ELEMENT.findall(quoted))
        code = said(element.get("Code", ""))
        if status is None:
            of_one = _OF_ONE.search(quoted.strip())
            return cls(0, of_one[1] if of_one else code, said(quoted.removeprefix("Generic S3 error: ")))
        body = said(f"{code}: {element['Message']}") if "Message" in element else said(quoted[status.end() :])
        return cls(int(status[1]), code, f"status {status[1]}, {body}")

    @property
    def is_final(self) -> bool:
        """Whether asking again is of no use: the service does not know what was asked of it."""
        return self.status == _CANNOT_STATUS or self.code == "NotImplemented"

    @property
    def is_refusal(self) -> bool:
        """Whether the credentials are why."""
        return self.code in {*_CREDENTIALS, "AccessDenied"} or self.status in _FORBIDDEN_STATUSES


def by_answer(place: BucketAddress, error: BaseException, key: str = "") -> HopArchiveError:
    """Return the error for what obstore raised, of an object if a key is given, where the service, asked again, finds nothing wrong."""
    answer = Answer.of(error)
    if answer.is_final:
        return UnsupportedError(
            f"{place} does not know what was asked of it: {answer.text}.",
            remedy=_CONDITIONAL_WRITES,
            **place.facts,
        )
    if answer.code == _FROZEN:
        return ObjectFrozenError(
            f"{place}: {f'object {key}' if key else 'an object'} is in cold storage ({answer.text}).",
            remedy=f"Restore it for some days (aws s3api restore-object --bucket {place.bucket} --key KEY --restore-request Days=7), and run "
            "this again when that is done. Let no lifecycle rule move objects of the archive to GLACIER or DEEP_ARCHIVE: hop-archive"
            " doctor names those that do.",
            object_key=key,
            **place.facts,
        )
    if answer.is_refusal or isinstance(error, PermissionDeniedError | UnauthenticatedError):
        denied = answer.status in _FORBIDDEN_STATUSES and answer.code not in _CLOCK
        allowed = "; it may be listed with these credentials, but not more" if denied else ""
        return forbidden(place, answer.text + allowed, answer.code)
    return unavailable(place, f"{answer.text}; asked again, it answers")


def overwrites(place: BucketAddress) -> UnsupportedError:
    """Return the error for a server that took a put which it had to refuse."""
    return UnsupportedError(
        f"{place} replaced an object by a put that is for keys where none stands: it ignores If-None-Match.",
        remedy=f"Nothing else was written. {_CONDITIONAL_WRITES} Without that, two archivers, or one that wakes up late, overwrite "
        "each other's objects; hop-archive doctor tells whether a server can.",
        **place.facts,
    )


def diagnose(
    place: BucketAddress, client: Callable[[], Any], again: Callable[[Any], Any] | None = None
) -> HopArchiveError | None:
    """Return the error that the service gives as its reason now; None when it finds nothing wrong.

    Takes up to twice ``PROBE_TIMEOUT_S``, and no longer than a refusal when nothing listens.

    Args:
        place: What was asked.
        client: Makes a boto3 S3 client that gives up soon and does not retry.
        again: What to ask of it; None: a listing of one key.
    """
    import botocore.exceptions as boto

    def redirected(context: dict[str, Any], **_: object) -> None:
        context.setdefault("s3_redirect", {})["redirected"] = True

    ask = again or (lambda asked: asked.list_objects_v2(Bucket=place.bucket, MaxKeys=1))
    try:
        asked = client()
        # So that boto3 reports a bucket that is elsewhere, as obstore meets it, and does not ask there by itself: where
        # the place is not told, boto3 1.44 would ask until the stack overflows.
        asked.meta.events.register("before-call.s3", redirected)
        ask(asked)
    except boto.ClientError as error:
        return _refusal(place, error.response)
    except boto.ParamValidationError as error:
        return ConfigurationError(f"{place}: {said(' '.join(str(error).split()))}.", **place.facts)
    except (
        boto.NoCredentialsError,
        boto.PartialCredentialsError,
        boto.CredentialRetrievalError,
        boto.TokenRetrievalError,
        boto.SSOError,
        boto.ProfileNotFound,
        boto.MetadataRetrievalError,
    ) as error:
        return without_credentials(place, error)
    except boto.BotoCoreError as error:
        return unavailable(place, said(error))
    return None


def without_credentials(place: BucketAddress, error: Exception) -> ForbiddenError:
    """Return the error for credentials that boto3 did not find, or that nobody gave it."""
    from botocore.exceptions import CredentialRetrievalError

    # The text of this one has what a credential process wrote to its error output: nobody knows what that is.
    if isinstance(error, CredentialRetrievalError):
        return forbidden(place, f"no credentials: {error.kwargs.get('provider', 'the chain')} gave none")
    return forbidden(place, f"no credentials: {said(error)}")


def unavailable(place: BucketAddress, found: str) -> UnavailableError:
    """Return the error for a service that cannot now."""
    return UnavailableError(
        f"{place} could not do what was asked: {found.rstrip('.')}.",
        remedy="Check that the service runs and can be reached from here; then run again.",
        **place.facts,
    )


def forbidden(place: BucketAddress, found: str, code: str = "") -> ForbiddenError:
    """Return the error for credentials that are missing, wrong, expired or not allowed to."""
    return ForbiddenError(
        f"{place} refused: {found.rstrip('.')}.",
        remedy=_SET_CLOCK if code in _CLOCK else _CHECK_KEYS,
        code=code,
        **place.facts,
    )


_CONDITIONAL_WRITES = (
    "The archive creates objects only where none stands (If-None-Match: *, S3's conditional writes); use a server, or a release "
    "of it, that can."
)
_CHECK_KEYS = (
    "Check the keys that the stanza names, or, when it names none, what the default AWS chain finds "
    "(profile, environment, role), and that they may list, read and write this bucket, and delete there if that was asked. What a "
    "lock or a legal hold keeps is deleted when that is over: run this again then."
)
_SET_CLOCK = (
    "Set this machine's clock, or the server's (date -u, chronyc tracking): requests are signed with the time, and are taken "
    "for some minutes only."
)


def _refusal(place: BucketAddress, answer: Any) -> HopArchiveError:
    code = said(answer.get("Error", {}).get("Code", ""))
    reply = said(f"{code}: {answer.get('Error', {}).get('Message', '')}")
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if code in _NO_BUCKET:
        return MissingSettingError(
            f"{place}: the bucket isn't there (the service said {code}).",
            remedy="Create it, or correct the stanza's bucket or endpoint.",
            **place.facts,
        )
    if code in _REGION or status in _REDIRECTS:
        named = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("x-amz-bucket-region")
        region = said(named or answer.get("Error", {}).get("Region", ""))
        return MissingSettingError(
            f"{place}: the bucket is elsewhere (the service said {code}{f': {region}' if region else ''}).",
            remedy="Correct the stanza's region or endpoint.",
            bucket_region=region,
            **place.facts,
        )
    if code in _CREDENTIALS or status in _FORBIDDEN_STATUSES:
        return forbidden(place, reply, code)
    return unavailable(place, f"status {status}, {reply}")
