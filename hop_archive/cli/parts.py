"""The catalog and the store alone, for commands that ask no source: its variables need not be set then."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hop_archive.catalog.protocol import Catalog
    from hop_archive.cli.options import Setup
    from hop_archive.store.protocol import Store


def catalog_of(setup: Setup) -> Catalog:
    """The catalog of the chosen database stanza; nothing is connected yet.

    Raises:
        ConfigurationError: A variable that the stanza names is not set.
    """
    from hop_archive.config.open import open_catalog

    name = setup.selection.database
    return open_catalog(name, setup.configuration.database(name))


def store_of(setup: Setup) -> Store:
    """The store of the chosen store stanza; nothing is connected yet.

    Raises:
        ConfigurationError: A variable that the stanza names is not set.
    """
    from hop_archive.config.open import open_store

    name = setup.selection.store
    return open_store(name, setup.configuration.store(name))
