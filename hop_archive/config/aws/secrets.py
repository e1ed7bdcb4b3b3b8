"""Secrets of AWS Secrets Manager, by name."""

from __future__ import annotations

from pydantic import SecretStr

from hop_archive.config.aws.account import ask
from hop_archive.config.aws.memory import Memory
from hop_archive.config.aws.refusals import Subject
from hop_archive.config.aws.shapes import Secret

_ACTION = "secretsmanager:GetSecretValue"
_MEMORY: Memory[SecretStr] = Memory()


def secret(name: str, *, where: str, region: str, profile: str = "", instead: str = "") -> Secret:
    """Return the present value (``AWSCURRENT``) of a secret, which is remembered for a minute.

    Args:
        name: Its name or ARN.
        where: The stanza and key that name it, for messages.
        region: Where it is.
        profile: Whose credentials to ask with; empty: those of the default chain.
        instead: A sentence with what would do without AWS, for messages; empty: nothing.

    Raises:
        MissingSettingError: There is no such secret here, or it has no value.
        ForbiddenError: There are no credentials, or they do not allow it.
        ConfigurationError: It is binary.
        UnavailableError: AWS does not answer.
    """
    subject = Subject(where, f'secret "{name}"', _ACTION, region, profile, instead)

    def asked() -> SecretStr:
        answer = ask(subject, "secretsmanager", lambda client: client.get_secret_value(SecretId=name))
        if answer.get("SecretString"):
            return SecretStr(answer["SecretString"])
        found = "binary" if "SecretBinary" in answer else "empty"
        raise subject.wrong(f"it is {found}", "Give it a text value, or correct secret_name.")

    return Secret(_MEMORY.get((name, region, profile), asked), subject)


def forget() -> None:
    """Ask anew next time."""
    _MEMORY.clear()
