"""``python -m hop_archive.cli``: the command line where its script is not installed."""

from __future__ import annotations

from hop_archive.cli import main

if __name__ == "__main__":
    main()
