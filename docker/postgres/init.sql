-- compose.yaml's Postgres, when its volume is new: a database for Dagster beside the catalog's.
CREATE DATABASE dagster;
