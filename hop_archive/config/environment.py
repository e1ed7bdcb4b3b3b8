"""What the environment supplies at the moment of use: variables in a stanza's values, and secrets.

A stanza holds the *name* of a secret, never the secret. Whoever connects asks the stanza (``login``,
``access_keys``, ``dsn``), the stanza asks here, and a ``SecretStr`` comes back that neither ``repr`` nor a log
shows. Another place to keep secrets is another function here and another key in the stanzas that may use it;
no adapter changes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic import SecretStr

from hop_archive.errors import MissingSettingError

LOCAL_PREFIX = "HOP_ARCHIVE_LOCAL_"
LOCAL_REMEDY = 'Start the local stack, then: eval "$(hop-archive local env --dir DIR)".'

_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<default>:-[^{}]*)?\}")


def secret_from_environment(variable: str, environ: Mapping[str, str], *, where: str) -> SecretStr:
    """Return the secret that an environment variable holds.

    Args:
        variable: Name of the variable.
        environ: The environment.
        where: The stanza and key that name it, for the message.

    Raises:
        MissingSettingError: The variable is not set, or is empty: no server takes an empty secret.
    """
    if value := environ.get(variable):
        return SecretStr(value)
    raise missing_variables([(where, variable)], environ)


def has_variable(text: str) -> bool:
    """Tell whether the text holds ``${``: it has no meaning before it is expanded."""
    return "${" in text


def is_well_formed(text: str) -> bool:
    """Tell whether each ``${`` of the text begins ``${NAME}`` or ``${NAME:-default}``."""
    return not has_variable(_VARIABLE.sub("", text))


def unset_variables(text: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the variables that ``expand`` would miss, in the order of the text."""
    without_default = (found["name"] for found in _VARIABLE.finditer(text) if found["default"] is None)
    return tuple(name for name in without_default if not environ.get(name))


def written_out(text: str) -> str:
    """Return what the text itself says: defaults in their place, and nothing for what the environment supplies."""
    return _VARIABLE.sub(lambda found: (found["default"] or "").removeprefix(":-"), text)


def expand(text: str, environ: Mapping[str, str]) -> str:
    """Put values in the place of ``${NAME}`` and ``${NAME:-default}``, once: a value is not expanded again.

    As in a shell, ``:-`` stands in for a variable that is not set or is empty. Check ``unset_variables`` first.

    Raises:
        KeyError: A variable without a default is not set.
    """

    def value(found: re.Match[str]) -> str:
        name, default = found["name"], found["default"]
        if default is None:
            return environ[name]
        return environ.get(name) or default.removeprefix(":-")

    return _VARIABLE.sub(value, text)


def missing_variables(missing: list[tuple[str, str]], environ: Mapping[str, str]) -> MissingSettingError:
    """Return the error for variables that are not there, one a line.

    Args:
        missing: Where (stanza and key) and which variable.
        environ: The environment, to tell a variable that is empty from one that is not set.
    """
    lines = [
        f"{where}: environment variable {name} is {'empty' if name in environ else 'not set'}."
        for where, name in missing
    ]
    names = [name for _, name in missing]
    local = all(name.startswith(LOCAL_PREFIX) for name in names)
    remedy = LOCAL_REMEDY if local else f"Set {' and '.join(dict.fromkeys(names))} in the environment."
    return MissingSettingError(
        "\n".join(lines), remedy=remedy, variables=names, where=[where for where, _ in missing]
    )
