"""The catalog's migrations, for Alembic; ``hop_archive.catalog.postgres.migrate`` runs them."""
