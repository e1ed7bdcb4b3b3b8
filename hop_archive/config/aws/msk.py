"""Tokens for Amazon MSK, whose brokers let in whom IAM lets in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import SecretStr

from hop_archive.config.aws.account import explained
from hop_archive.config.aws.refusals import Subject
from hop_archive.errors import needing_extra
from hop_archive.model.credentials import Token
from hop_archive.store.s3.credentials import session


def tokens(where: str, region: str, profile: str = "") -> Callable[[], Token]:
    """Return what makes tokens of a quarter of an hour, each of the AWS credentials that there are by then.

    A token is signed here; no service is asked for it, but those that give the credentials of a role.

    Args:
        where: The stanza and key that want them, for messages.
        region: Where the cluster is.
        profile: Whose credentials to take; empty: those of the default chain.

    Raises:
        MissingSettingError: The extra ``msk`` is not installed. Making a token: the profile is not there.
        ForbiddenError: Making a token: there are no credentials, or they cannot be renewed.
    """
    with needing_extra("msk"):
        from aws_msk_iam_sasl_signer import MSKAuthTokenProvider
    from botocore.credentials import CredentialProvider
    from botocore.exceptions import NoCredentialsError

    class OfSession(CredentialProvider):  # type: ignore[misc]  # botocore has no types
        def load(self) -> Any:
            credentials = session(profile).get_credentials()
            if credentials is None:
                raise NoCredentialsError
            return credentials.get_frozen_credentials()

    subject = Subject(where, "a token for MSK", "kafka-cluster:Connect", region, profile)
    provider = OfSession()

    def token() -> Token:
        signed, ends_at_ms = explained(
            subject,
            lambda: MSKAuthTokenProvider.generate_auth_token_from_credentials_provider(region, provider),
        )
        return Token(SecretStr(signed), ends_at_ms / 1000)

    return token
