"""The job table, its rows and the views for administrators."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_JOB_STATES = (
    "('receiving', 'queued', 'segmenting', 'segmented', 'delivered', 'held', 'rejected', 'failed', "
    "'cancelled', 'purged')"
)


def upgrade() -> None:
    """Create every table and view."""
    _create_jobs()
    _create_images()
    _create_history()
    _create_deliveries()
    _create_results()
    for name, query in _VIEWS.items():
        op.execute(f"CREATE VIEW {name} AS {query}")


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("calling_ae_title", sa.String(16), nullable=False),
        sa.Column("called_ae_title", sa.String(16), nullable=False),
        sa.Column("study_instance_uid", sa.String(64), nullable=False),
        sa.Column("series_instance_uid", sa.String(64), nullable=False),
        sa.Column("patient_id", sa.String, nullable=False),
        sa.Column("patient_name", sa.String),
        sa.Column("accession_number", sa.String, nullable=False),
        sa.Column("study_date", sa.String, nullable=False),
        sa.Column("study_description", sa.String, nullable=False),
        sa.Column("series_description", sa.String, nullable=False),
        sa.Column("instance_count", sa.Integer, nullable=False),
        sa.Column("byte_count", sa.Integer, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("last_instance_at", sa.DateTime, nullable=False),
        sa.Column("state_since", sa.DateTime, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("not_before", sa.DateTime),
        sa.Column("lease_owner", sa.String),
        sa.Column("lease_expires_at", sa.DateTime),
        sa.Column("progress_stage", sa.String),
        sa.Column("progress_fraction", sa.Double),
        sa.Column("reason_code", sa.String),
        sa.Column("reason", sa.String),
        sa.Column("result_sop_instance_uid", sa.String(64), nullable=False),
        sa.Column("result_series_instance_uid", sa.String(64), nullable=False),
        sa.Column("result_sha256", sa.String(64)),
        sa.Column("model_name", sa.String),
        sa.Column("model_version", sa.String),
        sa.Column("model_digest", sa.String),
        sa.CheckConstraint(
            "(state = 'segmenting') = (lease_owner IS NOT NULL)", name="ck_jobs_lease_while_segmenting"
        ),
        sa.CheckConstraint("(lease_owner IS NULL) = (lease_expires_at IS NULL)", name="ck_jobs_lease_whole"),
        sa.CheckConstraint(
            "state NOT IN ('failed', 'rejected') OR reason IS NOT NULL", name="ck_jobs_reason_given"
        ),
        sa.CheckConstraint("progress_fraction BETWEEN 0 AND 1", name="ck_jobs_progress_is_fraction"),
        sa.UniqueConstraint(
            "series_instance_uid",
            "calling_ae_title",
            "called_ae_title",
            "revision",
            name="uq_jobs_series_instance_uid_calling_ae_title_called_ae_title_revision",
        ),
        sa.CheckConstraint(f"state IN {_JOB_STATES}", name="ck_jobs_state"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "uq_jobs_one_receiving",
        "jobs",
        ["series_instance_uid", "calling_ae_title", "called_ae_title"],
        unique=True,
        sqlite_where=sa.text("state = 'receiving'"),
    )
    op.create_index("ix_jobs_state_id", "jobs", ["state", "id"])
    op.create_index("ix_jobs_patient_id", "jobs", ["patient_id"])
    op.create_index("ix_jobs_accession_number", "jobs", ["accession_number"])


def _create_images() -> None:
    op.create_table(
        "instances",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("job_id", sa.Integer, nullable=False),
        sa.Column("sop_instance_uid", sa.String(64), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("byte_count", sa.Integer, nullable=False),
        sa.Column("transfer_syntax_uid", sa.String(64), nullable=False),
        sa.Column("received_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_instances"),
        sa.UniqueConstraint("job_id", "sop_instance_uid", name="uq_instances_job_id_sop_instance_uid"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_instances_job_id"),
    )
    op.create_table(
        "set_asides",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("job_id", sa.Integer, nullable=False),
        sa.Column("sop_instance_uid", sa.String(64), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("calling_ae_title", sa.String(16), nullable=False),
        sa.Column("file_name", sa.String, nullable=False),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_set_asides"),
        sa.UniqueConstraint("job_id", "file_name", name="uq_set_asides_job_id_file_name"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_set_asides_job_id"),
    )


def _create_history() -> None:
    op.create_table(
        "job_events",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("job_id", sa.Integer, nullable=False),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.Column("from_state", sa.String(16)),
        sa.Column("to_state", sa.String(16), nullable=False),
        sa.Column("reason_code", sa.String),
        sa.Column("detail", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_job_events"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_job_events_job_id"),
        sa.CheckConstraint(f"from_state IN {_JOB_STATES}", name="ck_job_events_from_state"),
        sa.CheckConstraint(f"to_state IN {_JOB_STATES}", name="ck_job_events_to_state"),
    )
    op.create_index("ix_job_events_job_id", "job_events", ["job_id"])


def _create_deliveries() -> None:
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("job_id", sa.Integer, nullable=False),
        sa.Column("destination", sa.String, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("not_before", sa.DateTime),
        sa.Column("lease_owner", sa.String),
        sa.Column("lease_expires_at", sa.DateTime),
        sa.Column("failure_kind", sa.String),
        sa.Column("last_status", sa.Integer),
        sa.Column("detail", sa.String),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("sent_at", sa.DateTime),
        sa.PrimaryKeyConstraint("id", name="pk_deliveries"),
        sa.UniqueConstraint("job_id", "destination", name="uq_deliveries_job_id_destination"),
        sa.CheckConstraint(
            "(lease_owner IS NULL) = (lease_expires_at IS NULL)", name="ck_deliveries_lease_whole"
        ),
        sa.CheckConstraint("(state = 'sent') = (sent_at IS NOT NULL)", name="ck_deliveries_sent_has_time"),
        sa.CheckConstraint(
            "state <> 'failed' OR failure_kind IS NOT NULL", name="ck_deliveries_failure_told"
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_deliveries_job_id"),
        sa.CheckConstraint("state IN ('pending', 'sent', 'failed', 'cancelled')", name="ck_deliveries_state"),
    )
    op.create_index("ix_deliveries_state_not_before", "deliveries", ["state", "not_before"])


def _create_results() -> None:
    op.create_table(
        "structures",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("job_id", sa.Integer, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("volume_cm3", sa.Double, nullable=False),
        sa.Column("contours", sa.Integer, nullable=False),
        sa.Column("slices", sa.Integer, nullable=False),
        sa.Column("found", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_structures"),
        sa.UniqueConstraint("job_id", "name", name="uq_structures_job_id_name"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_structures_job_id"),
    )
    op.create_table(
        "stage_times",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("job_id", sa.Integer, nullable=False),
        sa.Column("stage", sa.String, nullable=False),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_stage_times"),
        sa.UniqueConstraint("job_id", "stage", name="uq_stage_times_job_id_stage"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_stage_times_job_id"),
    )


_VIEWS = {
    "v_jobs": """
        SELECT
            jobs.id AS job,
            state,
            datetime(state_since) AS since_utc,
            patient_id,
            patient_name,
            accession_number,
            study_date,
            study_description,
            series_description,
            instance_count AS images,
            calling_ae_title AS sender,
            called_ae_title AS called,
            revision,
            attempts,
            reason_code,
            reason,
            (SELECT group_concat(told, ', ') FROM (
                SELECT destination || ' ' || deliveries.state AS told
                FROM deliveries WHERE job_id = jobs.id ORDER BY deliveries.id)) AS destinations,
            (SELECT count(*) FROM structures WHERE job_id = jobs.id AND found) AS structures,
            (SELECT count(*) FROM set_asides WHERE job_id = jobs.id) AS images_set_aside,
            model_name || ' ' || model_version AS model,
            datetime(created_at) AS received_utc,
            datetime(last_instance_at) AS last_image_utc,
            study_instance_uid,
            series_instance_uid,
            result_sop_instance_uid
        FROM jobs
    """,
    "v_waiting": """
        SELECT
            jobs.id AS job,
            jobs.state,
            CASE jobs.state
                WHEN 'receiving' THEN 'more images, or a quiet period'
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
    """,
    "v_failed": """
        SELECT
            id AS job,
            state,
            datetime(state_since) AS failed_utc,
            reason_code,
            reason,
            attempts,
            patient_id,
            patient_name,
            accession_number,
            study_description,
            series_description,
            instance_count AS images,
            calling_ae_title AS sender
        FROM jobs
        WHERE state IN ('failed', 'rejected')
    """,
    "v_deliveries": """
        SELECT
            job_id AS job,
            destination,
            deliveries.state,
            deliveries.attempts,
            datetime(deliveries.created_at) AS since_utc,
            datetime(sent_at) AS sent_utc,
            datetime(deliveries.not_before) AS next_try_utc,
            failure_kind,
            CASE WHEN last_status IS NOT NULL THEN printf('0x%04X', last_status) END AS last_status,
            detail,
            patient_id,
            patient_name,
            accession_number,
            calling_ae_title AS sender,
            result_sop_instance_uid
        FROM deliveries JOIN jobs ON jobs.id = job_id
    """,
    # The last time a job entered each state: a retried job is measured by the try that succeeded.
    "v_turnaround": """
        WITH entered AS (
            SELECT
                job_id,
                max(CASE WHEN to_state = 'queued' AND from_state = 'receiving' THEN at END) AS queued_at,
                max(CASE WHEN to_state = 'segmenting' THEN at END) AS segmenting_at,
                max(CASE WHEN to_state = 'segmented' AND from_state = 'segmenting' THEN at END)
                    AS segmented_at,
                max(CASE WHEN to_state = 'delivered' THEN at END) AS delivered_at
            FROM job_events
            WHERE from_state IS NULL OR from_state <> to_state
            GROUP BY job_id
            HAVING delivered_at IS NOT NULL
        )
        SELECT
            jobs.id AS job,
            patient_id,
            accession_number,
            calling_ae_title AS sender,
            instance_count AS images,
            datetime(created_at) AS received_utc,
            datetime(delivered_at) AS delivered_utc,
            round(86400 * (julianday(queued_at) - julianday(created_at)), 1) AS receiving_seconds,
            round(86400 * (julianday(segmenting_at) - julianday(queued_at)), 1) AS queued_seconds,
            round(86400 * (julianday(segmented_at) - julianday(segmenting_at)), 1) AS segmenting_seconds,
            round(86400 * (julianday(delivered_at) - julianday(segmented_at)), 1) AS delivering_seconds,
            round(86400 * (julianday(delivered_at) - julianday(created_at)), 1) AS total_seconds,
            (SELECT group_concat(told, ', ') FROM (
                SELECT printf('%s %.1f', stage, seconds) AS told
                FROM stage_times WHERE job_id = jobs.id ORDER BY stage_times.id)) AS segmenting_stages
        FROM entered JOIN jobs ON jobs.id = entered.job_id
    """,
}
