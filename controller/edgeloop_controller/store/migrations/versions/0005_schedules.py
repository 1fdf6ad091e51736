"""quarantine, approvals, and rollouts that wait for others"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "devices", sa.Column("quarantine", sa.Text(), nullable=False, server_default=sa.text("''"))
    )
    op.add_column(
        "rollouts", sa.Column("approvals", sa.JSON(), nullable=False, server_default=sa.text("'{}'"))
    )
