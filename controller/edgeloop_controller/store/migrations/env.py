"""Alembic's entry: runs on the connection that `store.migrate` hands over."""

from alembic import context

from edgeloop_controller.store import identity_tables  # noqa: F401 - tables of Base too
from edgeloop_controller.store.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
