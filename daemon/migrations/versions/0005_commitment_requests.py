"""Storage commitment asked of destinations, and what a receiving job still waits for."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the table and the columns, and let the view of what waits tell them."""
    op.create_table(
        "commitment_requests",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("delivery_id", sa.Integer, nullable=False),
        sa.Column("transaction_uid", sa.String(64), nullable=False),
        sa.Column("requested_at", sa.DateTime, nullable=False),
        sa.Column("answered_at", sa.DateTime),
        sa.Column("detail", sa.String),
        sa.PrimaryKeyConstraint("id", name="pk_commitment_requests"),
        sa.UniqueConstraint("transaction_uid", name="uq_commitment_requests_transaction_uid"),
        sa.ForeignKeyConstraint(
            ["delivery_id"], ["deliveries.id"], name="fk_commitment_requests_delivery_id"
        ),
    )
    op.create_index("ix_commitment_requests_delivery_id", "commitment_requests", ["delivery_id"])
    op.add_column("delivery_items", sa.Column("committed_at", sa.DateTime))
    op.add_column("jobs", sa.Column("awaits", sa.String))
    op.add_column("jobs", sa.Column("discarding", sa.Boolean, nullable=False, server_default=sa.text("0")))
    op.create_index("ix_jobs_discarding", "jobs", ["discarding"], sqlite_where=sa.text("discarding = 1"))
    op.execute("DROP VIEW v_waiting")
    op.execute(f"CREATE VIEW v_waiting AS {_WAITING}")


_WAITING = """
    SELECT
        jobs.id AS job,
        jobs.state,
        CASE jobs.state
            WHEN 'receiving' THEN coalesce(awaits, 'more images, or a quiet period')
            WHEN 'queued' THEN iif(jobs.not_before IS NULL, 'a worker', 'another try: ' || jobs.reason)
            WHEN 'segmenting' THEN coalesce(
                printf('%s %d %%', progress_stage, round(100 * progress_fraction)), 'the segmentation')
            WHEN 'segmented' THEN coalesce(
                destination || ': ' || deliveries.detail, destination, 'its deliveries')
            WHEN 'held' THEN 'an operator: ' || jobs.reason
        END AS waits_for,
        datetime(state_since) AS since_utc,
        CAST(round(86400 * (julianday('now') - julianday(state_since))) AS INTEGER) AS waiting_seconds,
        datetime(coalesce(deliveries.not_before, jobs.not_before)) AS next_try_utc,
        coalesce(deliveries.attempts, jobs.attempts) AS attempts,
        patient_id,
        patient_name,
        accession_number,
        calling_ae_title AS sender
    FROM jobs
    LEFT JOIN deliveries ON deliveries.job_id = jobs.id AND deliveries.state = 'pending'
    WHERE jobs.state IN ('receiving', 'queued', 'segmenting', 'segmented', 'held')
"""
