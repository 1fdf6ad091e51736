"""challengers in shadow"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "challengers",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("manifest_digest", sa.String(length=64), nullable=False),
        sa.Column("slot", sa.String(), nullable=False),
        sa.Column("selector", sa.String(), nullable=False),
        sa.Column("budget", sa.JSON(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["manifest_digest"], ["versions.manifest_digest"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "challenger_assignments",
        sa.Column("device_id", sa.String(), nullable=False),
        sa.Column("slot", sa.String(), nullable=False),
        sa.Column("challenger_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["challenger_id"], ["challengers.id"]),
        sa.ForeignKeyConstraint(["device_id"], ["devices.id"]),
        sa.PrimaryKeyConstraint("device_id", "slot"),
    )
    op.create_table(
        "shadow_windows",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("device_id", sa.String(), nullable=False),
        sa.Column("epoch", sa.String(length=16), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("received_at", sa.Double(), nullable=False),
        sa.Column("slot", sa.String(), nullable=False),
        sa.Column("manifest_digest", sa.String(length=64), nullable=False),
        sa.Column("champion_digest", sa.String(length=64), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("errors", sa.Integer(), nullable=False),
        sa.Column("nonfinite", sa.Integer(), nullable=False),
        sa.Column("disagreements", sa.Integer(), nullable=False),
        sa.Column("skipped", sa.Integer(), nullable=False),
        sa.Column("cpu_s", sa.Double(), nullable=False),
        sa.Column("span_s", sa.Double(), nullable=False),
        sa.Column("latency_p95_us", sa.Double(), nullable=False),
        sa.Column("memory_bytes", sa.Integer(), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("device_id", "epoch", "sequence"),
    )
    with op.batch_alter_table("shadow_windows", schema=None) as batch_op:
        batch_op.create_index(
            "ix_shadow_windows_version", ["manifest_digest", "slot", "received_at"], unique=False
        )


def downgrade() -> None:
    op.drop_table("shadow_windows")
    op.drop_table("challenger_assignments")
    op.drop_table("challengers")
