"""Secrets of AWS Secrets Manager by name, and what their text says: the forms that Kafka's and the database's have.

No message shows any of the text, nor does the error that a parser raised stay attached to ours: it holds the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import SecretStr

from hop_archive.config.aws.account import Memory, ask
from hop_archive.config.aws.refusals import Subject
from hop_archive.model.credentials import Login

_ACTION = "secretsmanager:GetSecretValue"
_MEMORY: Memory[SecretStr] = Memory()

# As in Kafka's own JAAS files: username="u" password="p" user_NAME="p".
_PAIR = re.compile(r"(?P<key>[^\s=\"]+)=(?:\"(?P<quoted>[^\"]*)\"|(?P<bare>[^\s\"]+));?(?:\s+|\Z)")


@dataclass(frozen=True, slots=True)
class Secret:
    """The text of a secret, and which one it is.

    Attributes:
        text: As it is kept.
        subject: For messages.
    """

    text: SecretStr
    subject: Subject


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


def kafka_login(secret: Secret, username: str = "") -> Login:
    """Return the login that a Kafka secret holds.

    It is ``{"username": "u", "password": "p"}``; or, in the older form, ``username="u" password="p"``, with or
    without pairs ``user_NAME="p"``, which hold the passwords of further users.

    Args:
        secret: The secret.
        username: Which user; empty: the one that the secret names, or its only one.

    Raises:
        ConfigurationError: It has another form, or no such user, or several of which none is named.
    """
    text = secret.text.get_secret_value().strip()
    table = _json_object(text)
    if table is None:
        pairs = list(_PAIR.finditer(text))
        whole = sum(len(pair[0]) for pair in pairs) == len(text)  # else it holds something that is no pair
        table = {pair["key"]: pair["bare"] or pair["quoted"] or "" for pair in pairs} if whole else {}
    owner = str(table.get("username", ""))
    every = {key.removeprefix("user_"): value for key, value in table.items() if key.startswith("user_")}
    every[owner] = table.get("password")
    users = {name: value for name, value in every.items() if name and isinstance(value, str) and value}
    if not users:
        raise secret.subject.wrong("it does not hold a username and a password", _KAFKA_FORMS)
    name = username or owner or (next(iter(users)) if len(users) == 1 else "")
    known = ", ".join(sorted(users))
    if not name:
        raise secret.subject.wrong(
            f"it holds several users, {known}",
            "Choose one: username = ... in the stanza.",
        )
    if name not in users:
        raise secret.subject.wrong(
            f"it holds no password of {name}; it has {known}",
            "Correct the stanza's username.",
        )
    return Login(name, SecretStr(users[name]))


def database_login(secret: Secret, username: str = "") -> Login:
    """Return the login that a database secret holds; its name is empty where the secret has none.

    It is the password and nothing else (but line ends at its end, which editors add); or a JSON object with
    ``password`` and, it may be, ``username``, which is what RDS keeps of a master user.

    Args:
        secret: The secret.
        username: As whom to log in, for the password has to be that user's; empty: as the secret says.

    Raises:
        ConfigurationError: It has another form, or is another user's.
    """
    text = secret.text.get_secret_value().rstrip("\r\n")
    table = _json_object(text)
    if table is None:
        table = {"password": text}
    password, owner = table.get("password"), table.get("username", "")
    if not (isinstance(password, str) and password and isinstance(owner, str)):
        raise secret.subject.wrong("it does not hold a password", _DATABASE_FORMS)
    if username and owner and owner != username:
        raise secret.subject.wrong(
            f"it holds the password of {owner}, and {username} is wanted",
            "Correct the stanza's user or its secret_name.",
        )
    return Login(username or owner, SecretStr(password))


_KAFKA_FORMS = 'Give it the value {"username": "...", "password": "..."}, or correct secret_name.'
_DATABASE_FORMS = (
    'Give it the password, or {"username": "...", "password": "..."}, as its value, or correct secret_name.'
)


def _json_object(text: str) -> Mapping[str, object] | None:
    if not text.startswith("{"):
        return None
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
