"""Indexes, so that a million jobs or a destination that is down for days make no call slower."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Find the delivery due the longest, a destination's lease, and jobs by age, each without a search."""
    op.drop_index("ix_deliveries_state_not_before", "deliveries")
    op.create_index(
        "ix_deliveries_due", "deliveries", ["state", sa.text("coalesce(not_before, created_at)"), "id"]
    )
    op.create_index(
        "ix_deliveries_under_way",
        "deliveries",
        ["destination", "lease_expires_at"],
        sqlite_where=sa.text("lease_expires_at IS NOT NULL"),
    )
    op.create_index("ix_jobs_state_state_since", "jobs", ["state", "state_since"])
