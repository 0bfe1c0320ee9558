"""The schema's migrations: which there are, and which a database has had."""

from pathlib import Path
from typing import Any

import psycopg

MIGRATIONS = Path(__file__).parent / "migrations"


def newest_migration() -> str:
    """Give the version of the newest migration that this code knows."""
    return max(path.name.partition("_")[0] for path in MIGRATIONS.glob("*.sql"))


async def applied_migration(connection: psycopg.AsyncConnection[Any]) -> str:
    """Read the version of the newest migration that dbmate has applied; empty when it has applied none."""
    try:
        cursor = await connection.execute("SELECT coalesce(max(version), '') FROM schema_migrations")
    except psycopg.errors.UndefinedTable:
        return ""
    return str((await cursor.fetchall())[0][0])
