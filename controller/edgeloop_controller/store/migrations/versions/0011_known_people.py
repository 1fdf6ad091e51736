"""API tokens, who started a rollout, the audit log's chain"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "api_tokens",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("roles", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("ends_at", sa.Double(), nullable=True),
        sa.Column("revoked_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_tokens")),
        sa.UniqueConstraint("digest", name=op.f("uq_api_tokens_digest")),
    )
    op.create_index(op.f("ix_api_tokens_name"), "api_tokens", ["name"])
    # Adding a column that may be null rebuilds no table: the audit log's triggers stay.
    op.add_column("audit_log", sa.Column("chain", sa.String(length=64), nullable=True))
    op.add_column(
        "rollouts", sa.Column("started_by", sa.String(), nullable=False, server_default="")
    )


def downgrade() -> None:
    op.drop_column("rollouts", "started_by")
    op.drop_column("audit_log", "chain")
    op.drop_index(op.f("ix_api_tokens_name"), "api_tokens")
    op.drop_table("api_tokens")
