"""A job makes several objects, each for some of its destinations; what is doubtful is written down."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Move the one structure set of every job into the new tables."""
    op.create_table(
        "results",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("job_id", sa.Integer, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("profile", sa.String, nullable=False),
        sa.Column("sop_instance_uid", sa.String(64), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("file_name", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_results"),
        sa.UniqueConstraint("job_id", "file_name", name="uq_results_job_id_file_name"),
        sa.UniqueConstraint("sop_instance_uid", name="uq_results_sop_instance_uid"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_results_job_id"),
    )
    op.create_table(
        "delivery_items",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("delivery_id", sa.Integer, nullable=False),
        sa.Column("result_id", sa.Integer, nullable=False),
        sa.Column("sent_at", sa.DateTime),
        sa.PrimaryKeyConstraint("id", name="pk_delivery_items"),
        sa.UniqueConstraint("delivery_id", "result_id", name="uq_delivery_items_delivery_id_result_id"),
        sa.ForeignKeyConstraint(["delivery_id"], ["deliveries.id"], name="fk_delivery_items_delivery_id"),
        sa.ForeignKeyConstraint(["result_id"], ["results.id"], name="fk_delivery_items_result_id"),
    )
    op.create_table(
        "findings",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("job_id", sa.Integer, nullable=False),
        sa.Column("code", sa.String, nullable=False),
        sa.Column("severity", sa.String, nullable=False),
        sa.Column("structure", sa.String),
        sa.Column("text", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_findings"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_findings_job_id"),
    )
    op.create_index("ix_findings_job_id", "findings", ["job_id"])
    op.execute(
        "INSERT INTO results (job_id, kind, profile, sop_instance_uid, sha256, file_name) "
        "SELECT id, 'rtstruct', 'generic', result_sop_instance_uid, result_sha256, 'structure_set.dcm' "
        "FROM jobs WHERE result_sha256 IS NOT NULL"
    )
    op.execute(
        "INSERT INTO delivery_items (delivery_id, result_id, sent_at) "
        "SELECT deliveries.id, results.id, sent_at "
        "FROM deliveries JOIN results ON results.job_id = deliveries.job_id"
    )
    op.execute("ALTER TABLE jobs DROP COLUMN result_sha256")
    op.execute(f"CREATE VIEW v_findings AS {_FINDINGS}")


_FINDINGS = """
    SELECT
        job_id AS job,
        state,
        severity,
        code,
        structure,
        text,
        patient_id,
        patient_name,
        accession_number,
        calling_ae_title AS sender,
        model_name || ' ' || model_version AS model,
        datetime(state_since) AS since_utc
    FROM findings JOIN jobs ON jobs.id = job_id
"""
