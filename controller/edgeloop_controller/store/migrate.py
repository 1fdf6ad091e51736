"""Brings a database to this release's schema, at start, with the migrations in this package."""

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Engine

from edgeloop_controller.errors import StartError

MIGRATIONS: Final = Path(__file__).parent / "migrations"


def upgrade(engine: Engine) -> None:
    """Run the outstanding migrations in one transaction. Raises StartError for a newer database."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    with engine.begin() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
        if current is not None and current not in known:
            raise StartError(
                f"the database at {engine.url.render_as_string()} has schema {current}, which "
                "this release does not know",
                hint="it was written by a newer release: run that one, or use another data_dir",
            )
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
