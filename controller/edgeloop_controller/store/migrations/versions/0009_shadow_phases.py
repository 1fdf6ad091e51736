"""Rollouts that begin in shadow, and the challengers that are theirs"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "rollouts", sa.Column("shadow", sa.JSON(), nullable=False, server_default=sa.text("'{}'"))
    )
    op.add_column("challengers", sa.Column("rollout_id", sa.Integer(), nullable=True))
