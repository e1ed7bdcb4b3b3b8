"""Why AWS refused, in the words of whoever can mend it; recognized by the code of its answer, never by its text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hop_archive.errors import (
    ConfigurationError,
    ForbiddenError,
    HopArchiveError,
    MissingSettingError,
    UnavailableError,
)
from hop_archive.model.wording import said
from hop_archive.store.s3.credentials import session

_NOT_THERE = frozenset(
    {
        "ResourceNotFoundException",  # a secret that is not there, or that has no value labelled AWSCURRENT
        "DBInstanceNotFound",
        "DBInstanceNotFoundFault",
        "DBLogFileNotFoundFault",
    }
)
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
_SKEWED = frozenset({"RequestExpired", "RequestInTheFuture", "RequestTimeTooSkewed"})
_UNKNOWN_KEYS = frozenset(
    {
        "AuthFailure",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_DENIED = frozenset(
    {"AccessDenied", "AccessDeniedException", "DecryptionFailure", "NotAuthorized", "UnauthorizedOperation"}
)
_LATER = frozenset(
    {
        "DBInstanceNotReady",
        "InternalFailure",
        "InternalServiceError",
        "RequestLimitExceeded",
        "RequestThrottled",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottledException",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)


@dataclass(frozen=True, slots=True)
class Subject:
    """What is asked of AWS, and on whose behalf.

    Attributes:
        where: The stanza and key that want it.
        what: As ``secret "x"``.
        action: What IAM calls the permission, as ``secretsmanager:GetSecretValue``.
        region: Where it is asked for.
        profile: Whose credentials are used; empty: those of the default chain.
        instead: A sentence with what would do without AWS; empty: nothing.
    """

    where: str
    what: str
    action: str
    region: str
    profile: str = ""
    instead: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.what} in region {self.region}"

    @property
    def asking(self) -> str:
        """Who asks, for messages."""
        return f"profile {self.profile}" if self.profile else "the default AWS chain"

    @property
    def facts(self) -> Mapping[str, str]:
        """What errors carry."""
        return {"where": self.where, "what": self.what, "region": self.region, "profile": self.profile}

    def missing(self, found: str, remedy: str) -> MissingSettingError:
        """Return the error for something that is not there."""
        return MissingSettingError(f"{self}: {found}.", remedy=remedy, **self.facts)

    def wrong(self, found: str, remedy: str) -> ConfigurationError:
        """Return the error for something that is not as it has to be."""
        return ConfigurationError(f"{self}: {found}.", remedy=remedy, **self.facts)

    def forbidden(self, found: str, remedy: str, code: str = "") -> ForbiddenError:
        """Return the error for credentials that are missing, have expired, or are not allowed to."""
        return ForbiddenError(f"{self}: {found}.", remedy=remedy, code=code, **self.facts)

    def unavailable(self, found: str, remedy: str, code: str = "") -> UnavailableError:
        """Return the error for a service that does not answer, or cannot now."""
        return UnavailableError(f"{self}: {found}.", remedy=remedy, code=code, **self.facts)


def translated(subject: Subject, error: Exception) -> HopArchiveError:
    """Return the error of ours for one that boto3 raised."""
    import botocore.exceptions as boto

    if isinstance(error, boto.ClientError):
        return _refusal(subject, error)
    if isinstance(error, boto.NoCredentialsError):
        return subject.forbidden("no AWS credentials were found", f"{_NONE} {subject.instead}".rstrip())
    if isinstance(error, boto.ProfileNotFound):
        return subject.missing(
            f"AWS profile {error.kwargs.get('profile')} is not in the AWS configuration files",
            'Make it with "aws configure --profile NAME", or correct the stanza\'s profile or AWS_PROFILE.',
        )
    if isinstance(error, boto.PartialCredentialsError):
        return subject.forbidden(f"the AWS credentials are not whole ({error})".rstrip("."), _NONE)
    if isinstance(error, boto.CredentialRetrievalError):
        provider = error.kwargs.get("provider", "the chain")
        return subject.forbidden(f"{provider} of {subject.asking} gave no AWS credentials", _RENEW)
    if isinstance(error, boto.TokenRetrievalError | boto.SSOError | boto.LoginError):
        return subject.forbidden(f"the single sign-on of {subject.asking} has ended or never was", _RENEW)
    return _about_the_way(subject, error)


def _refusal(subject: Subject, error: object) -> HopArchiveError:
    response, operation = error.response, error.operation_name  # type: ignore[attr-defined]  # botocore has no types
    code = str(response.get("Error", {}).get("Code", ""))
    reply = _said(code, str(response.get("Error", {}).get("Message", "")))
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _NOT_THERE:
        nor = ", or it has no value yet" if subject.action.endswith("GetSecretValue") else ""
        return subject.missing(
            f"there is none in the account of {subject.asking}{nor} ({code})",
            "Create it, or correct the stanza's name for it, its region (it may be in another one) or its profile.",
        )
    if code in _EXPIRED:
        return subject.forbidden(f"the credentials of {subject.asking} have expired ({code})", _RENEW, code)
    if code in _SKEWED:
        return subject.forbidden(f"AWS finds the time of the request wrong ({reply})", _CLOCK, code)
    if code in _UNKNOWN_KEYS:
        return subject.forbidden(f"AWS does not accept the keys of {subject.asking} ({reply})", _KEYS, code)
    if code in _DENIED:
        return _denied(subject, reply, operation, code)
    if code in _LATER or status >= 500:
        return subject.unavailable(f"AWS cannot now ({reply})", "Try again in a minute.", code)
    if status in (401, 403):
        return _denied(subject, reply, operation, code)
    return subject.wrong(f"AWS refused {operation} ({reply})", "Correct the stanza, or what it names.")


_RENEW = 'Renew them ("aws sso login", or new keys in the environment or the profile), then run again.'
_KEYS = (
    "Check the keys that the environment or the profile holds, and AWS_SESSION_TOKEN where they need one; and this machine's "
    "clock, by which requests are signed."
)
_CLOCK = "Set this machine's clock (date -u, chronyc tracking): requests are signed with the time, and taken for minutes only."


def _said(code: str, message: str) -> str:
    """What the service said, on one line."""
    return said(" ".join(f"{code}: {message}".split()))


def _denied(subject: Subject, reply: str, operation: str, code: str) -> ForbiddenError:
    name = subject.action.partition(":")[2]
    action = subject.action if operation == name else f"sts:{operation}"
    key = " (and kms:Decrypt, where a key of your own encrypts it)" if name == "GetSecretValue" else ""
    return subject.forbidden(
        f"AWS refused {subject.asking} ({reply})",
        f"Allow {action} on it{key}, or use other credentials.",
        code,
    )


_NONE = (
    "Log in with a profile (AWS_PROFILE, or the stanza's profile), set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
    "run where a task or instance role supplies them."
)


def _about_the_way(subject: Subject, error: Exception) -> HopArchiveError:
    """No answer, or no question: an address that isn't one, a parameter that AWS's own rules forbid."""
    import botocore.exceptions as boto

    if isinstance(error, boto.InvalidRegionError) or (
        isinstance(error, boto.EndpointConnectionError) and not _is_region(subject.region)
    ):
        return subject.wrong(
            f'"{subject.region}" is no region that is known here',
            "Correct the stanza's region; as us-west-2.",
        )
    name = type(error).__name__
    if isinstance(error, boto.HTTPClientError | boto.ConnectionError | boto.MetadataRetrievalError):
        kwargs: Mapping[str, object] = getattr(error, "kwargs", {})
        return subject.unavailable(
            f"AWS does not answer ({_said(name, str(kwargs.get('endpoint_url', '')))})",
            "Check the network, the region, and AWS_ENDPOINT_URL if it is set; then try again.",
        )
    return subject.wrong(
        f"it could not be asked for ({_said(name, str(error))})",
        "Correct the stanza, or the AWS settings of the environment and the profile.",
    )


def _is_region(name: str) -> bool:
    """Tell whether some part of AWS has a region of that name, as far as this boto3 knows."""
    known = session()
    partitions = known.get_available_partitions()
    return any(name in known.get_available_regions("secretsmanager", part) for part in partitions)
