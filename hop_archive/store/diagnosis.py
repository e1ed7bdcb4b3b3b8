"""Why S3 refused: asks again, once, with a client that reports error codes.

obstore has one class for most failures (a refused connection, 503, a listing of a bucket that is not there,
a wrong region), and tells them apart by text only. So after a failure, and only then, boto3 asks for a
listing of one key, and its answer is translated by code. boto3 is imported only then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hop_archive.errors import (
    ConfigurationError,
    ForbiddenError,
    HopArchiveError,
    MissingSettingError,
    UnavailableError,
)

PROBE_TIMEOUT_S = 3.0

_NO_BUCKET = frozenset({"NoSuchBucket", "InvalidBucketName", "404"})
_REGION = frozenset(
    {"AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect"}
)
_REDIRECTS = frozenset({301, 302, 307, 308})
_CREDENTIALS = frozenset({"ExpiredToken", "InvalidToken", "TokenRefreshRequired"})
"""What AWS answers with status 400; with 401 and 403 the status says it."""

_FORBIDDEN_STATUSES = frozenset({401, 403})


@dataclass(frozen=True, slots=True)
class Place:
    """Which bucket, where, for whom.

    Attributes:
        stanza: The store's name.
        bucket: Its bucket.
        endpoint: ``http(s)://host:port``; empty: AWS.
        region: The region that requests are signed for.
    """

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
        return {
            "stanza": self.stanza,
            "bucket": self.bucket,
            "endpoint": self.endpoint,
            "region": self.region,
        }


def diagnose(
    place: Place, client: Callable[[], Any], again: Callable[[Any], Any] | None = None
) -> HopArchiveError | None:
    """Return the error that the service gives as its reason now; None when it finds nothing wrong.

    Takes up to twice ``PROBE_TIMEOUT_S``, and no longer than a refusal when nothing listens.

    Args:
        place: What was asked.
        client: Makes a boto3 S3 client that gives up soon and does not retry.
        again: What to ask of it; None: a listing of one key.
    """
    import botocore.exceptions as boto

    no_credentials = (
        boto.NoCredentialsError,
        boto.PartialCredentialsError,
        boto.CredentialRetrievalError,
        boto.TokenRetrievalError,
        boto.SSOError,
        boto.ProfileNotFound,
        boto.MetadataRetrievalError,
    )
    ask = again or (lambda asked: asked.list_objects_v2(Bucket=place.bucket, MaxKeys=1))
    try:
        ask(_without_redirects(client()))
    except boto.ClientError as error:
        return _refusal(place, error.response)
    except boto.ParamValidationError as error:
        return ConfigurationError(f"{place}: {error}", **place.facts)
    except no_credentials as error:
        return without_credentials(place, error)
    except boto.BotoCoreError as error:
        return unavailable(place, f"{error}")
    return None


def without_credentials(place: Place, error: Exception) -> ForbiddenError:
    """Return the error for credentials that boto3 did not find, or that nobody gave it."""
    from botocore.exceptions import CredentialRetrievalError

    # The text of this one has what a credential process wrote to its error output: nobody knows what that is.
    if isinstance(error, CredentialRetrievalError):
        return forbidden(place, f"no credentials: {error.kwargs.get('provider', 'the chain')} gave none")
    return forbidden(place, f"no credentials: {error}")


def unavailable(place: Place, found: str) -> UnavailableError:
    """Return the error for a service that cannot now."""
    return UnavailableError(
        f"{place} could not do what was asked: {found.rstrip('.')}.",
        remedy="Check that the service runs and can be reached from here; then run again.",
        **place.facts,
    )


def forbidden(place: Place, found: str, code: str = "") -> ForbiddenError:
    """Return the error for credentials that are missing, wrong, expired or not allowed to."""
    return ForbiddenError(
        f"{place} refused: {found.rstrip('.')}.",
        remedy="Check the keys that the stanza names, or, when it names none, what the default AWS chain finds "
        "(profile, environment, role), and that they may list, read and write this bucket.",
        code=code,
        **place.facts,
    )


def _without_redirects(client: Any) -> Any:
    """Make boto3 report that a bucket is elsewhere, as obstore meets it, rather than ask there by itself.

    Where the place is not told, boto3 1.44 would ask until the stack overflows.
    """

    def redirected(context: dict[str, Any], **_: object) -> None:
        context.setdefault("s3_redirect", {})["redirected"] = True

    client.meta.events.register("before-call.s3", redirected)
    return client


def _refusal(place: Place, answer: Any) -> HopArchiveError:
    code = str(answer.get("Error", {}).get("Code", ""))
    said = f"{code}: {answer.get('Error', {}).get('Message', '')}"
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if code in _NO_BUCKET:
        return MissingSettingError(
            f"{place}: the bucket isn't there (the service said {code}).",
            remedy="Create it, or correct the stanza's bucket or endpoint.",
            **place.facts,
        )
    if code in _REGION or status in _REDIRECTS:
        return _elsewhere(place, answer, code)
    if code in _CREDENTIALS or status in _FORBIDDEN_STATUSES:
        return forbidden(place, said, code)
    return unavailable(place, f"status {status}, {said}")


def _elsewhere(place: Place, answer: Any, code: str) -> MissingSettingError:
    named = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("x-amz-bucket-region")
    region = named or answer.get("Error", {}).get("Region", "")
    return MissingSettingError(
        f"{place}: the bucket is elsewhere (the service said {code}{f': {region}' if region else ''}).",
        remedy="Correct the stanza's region or endpoint.",
        bucket_region=region,
        **place.facts,
    )
