"""What Alembic runs around the migrations: they all go through the one connection that ``migrate`` made."""

from __future__ import annotations

from alembic import context

from hop_archive.catalog.postgres.sql import VERSION_TABLE


def run() -> None:
    """Migrate over the connection in the configuration's attributes: in the transaction that it has open, or each in its own."""
    attributes = context.config.attributes
    context.configure(
        connection=attributes["connection"],
        version_table=VERSION_TABLE,
        version_table_schema=attributes["running"].schema,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


# Alembic loads this file under the name env_py. Under any other, somebody only imports it, and there is no
# context to run in.
if __name__ == "env_py":
    run()
