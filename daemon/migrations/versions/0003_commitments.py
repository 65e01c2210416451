"""Storage commitment requests, kept until they are answered."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the table, and the index by which an instance is found without its series."""
    op.create_table(
        "commitments",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("transaction_uid", sa.String(64), nullable=False),
        sa.Column("calling_ae_title", sa.String(16), nullable=False),
        sa.Column("called_ae_title", sa.String(16), nullable=False),
        sa.Column("address", sa.String, nullable=False),
        sa.Column("instance_references", sa.String, nullable=False),
        sa.Column("requested_at", sa.DateTime, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("not_before", sa.DateTime, nullable=False),
        sa.Column("answered_at", sa.DateTime),
        sa.Column("detail", sa.String),
        sa.PrimaryKeyConstraint("id", name="pk_commitments"),
        sa.UniqueConstraint(
            "transaction_uid", "calling_ae_title", name="uq_commitments_transaction_uid_calling_ae_title"
        ),
    )
    op.create_index("ix_commitments_answered_at_not_before", "commitments", ["answered_at", "not_before"])
    op.create_index("ix_instances_sop_instance_uid", "instances", ["sop_instance_uid"])
