"""The file ``.env``: variables for the command line that need not be in the shell.

``dagster dev`` reads a ``.env`` in its working directory by itself, by the same rules, so one file serves both.
"""

from __future__ import annotations

import io
from collections.abc import MutableMapping
from pathlib import Path

from hop_archive.errors import ConfigurationError, MissingSettingError

DEFAULT_FILE = ".env"
NAMED_BY = "HOP_ARCHIVE_ENV_FILE"


def read_env_file(environ: MutableMapping[str, str]) -> None:
    """Add what the file says to ``environ``; a variable that is set there, be it empty, stays as it is.

    The file is the one that ``HOP_ARCHIVE_ENV_FILE`` names, or ``.env`` in the working directory if there is one.

    Raises:
        MissingSettingError: The file that was named is not there.
        ConfigurationError: It cannot be read, or has lines that are no assignment; none of their text is shown.
    """
    named = environ.get(NAMED_BY)
    path = Path(named or DEFAULT_FILE)
    if not (path.exists() if named else path.is_file()):
        if named:
            raise MissingSettingError(f"The file that {NAMED_BY} names is not there: {named}.", path=named)
        return
    from dotenv import dotenv_values
    from dotenv.parser import parse_stream

    from hop_archive.config.load import read_text

    text = read_text(path)
    wrong = []  # lines that are no assignment: python-dotenv itself would pass over them
    for binding in parse_stream(io.StringIO(text)):
        if binding.error or (binding.key is not None and binding.value is None):
            statement = binding.original.string  # with the blank lines before it
            before = statement[: len(statement) - len(statement.lstrip())]
            wrong.append(binding.original.line + before.count("\n"))
    if wrong:
        lines = f"line {wrong[0]}" if len(wrong) == 1 else f"lines {', '.join(map(str, wrong))}"
        raise ConfigurationError(
            f"{path}: {lines}: wanted NAME=value, a comment, or nothing; found something else (not shown).",
            remedy="Put a value with spaces, # or quotes in it between single quotes.",
            path=str(path),
            lines=wrong,
        )
    for name, value in dotenv_values(stream=io.StringIO(text)).items():
        if value is not None:
            environ.setdefault(name, value)
