"""Standard input, output and error output that are fit for use, whatever this process was started with.

A descriptor may be closed (``>&-``, a service that was started without one), full, or the far end of a pipe or terminal
that has gone. Whose work is its output has to end with an error then; whose work is another one has to go on.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TextIO


def occupy() -> None:
    """Give descriptors 0, 1 and 2 that are closed a file each, or the next one to be opened would be written over.

    Standard input is at its end at once. The others refuse what is written to them, so that it is noticed (the way of
    gnulib's ``stdopen``).
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)  # takes the lowest number that is free, which is this one
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - for as long as the process lives


class Outlet(io.FileIO):
    """A descriptor that is written to until it fails; what comes later is dropped.

    Attributes:
        is_work: Whether the first failure is raised; else it is only noted.
        failure: It, once there was one.
    """

    def __init__(self, descriptor: int, *, is_work: bool) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.is_work = is_work
        self.failure: OSError | None = None

    def write(self, data: object, /) -> int:
        """Write, or drop; never less than all in the latter case."""
        if self.failure is None:
            try:
                return super().write(data)  # type: ignore[arg-type]  # whatever FileIO takes
            except OSError as error:
                self.failure = error
                if self.is_work:
                    raise
        return memoryview(data).nbytes  # type: ignore[arg-type]  # the same

    def isatty(self) -> bool:
        """Whether it is a terminal that is there."""
        return self.failure is None and os.isatty(self.fileno())


def text(outlet: Outlet, like: TextIO | None) -> io.TextIOWrapper:
    """A text stream to an outlet, with the encoding of another one; what that has no character for is written out."""
    encoding, errors = (like.encoding, like.errors) if like is not None else ("utf-8", None)
    return io.TextIOWrapper(
        io.BufferedWriter(outlet),
        encoding=encoding,
        errors="backslashreplace" if errors in (None, "strict") else errors,
        line_buffering=outlet.isatty() or outlet.fileno() == 2,
        write_through=outlet.fileno() == 2,
    )
