"""what a device's full outbox merged and dropped"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_COLUMNS = ("merged", "sketches_shed", "samples_dropped", "events_dropped")


def upgrade() -> None:
    for name in _COLUMNS:
        column = sa.Column(name, sa.Integer(), nullable=False, server_default="0")
        op.add_column("telemetry_cursors", column)


def downgrade() -> None:
    for name in _COLUMNS:
        op.drop_column("telemetry_cursors", name)
