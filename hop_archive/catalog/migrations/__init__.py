"""The catalog's migrations, for Alembic; ``hop_archive.catalog.migrate`` runs them."""
