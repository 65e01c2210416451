"""The history by time, and the newest turnarounds, found without reading all of it."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the indexes, and a view that goes by them."""
    op.drop_index("ix_job_events_job_id", "job_events")
    op.create_index(
        "ix_job_events_job_id_to_state_from_state_at",
        "job_events",
        ["job_id", "to_state", "from_state", "at"],
    )
    op.create_index("ix_job_events_at", "job_events", ["at"])
    op.execute("DROP VIEW v_turnaround")
    op.execute(f"CREATE VIEW v_turnaround AS {_TURNAROUND}")


# Each moment is one look into an index. All events grouped at once would be read before the newest job is told.
_TURNAROUND = """
    SELECT
        job,
        patient_id,
        accession_number,
        sender,
        images,
        datetime(created_at) AS received_utc,
        datetime(delivered_at) AS delivered_utc,
        round(86400 * (julianday(queued_at) - julianday(created_at)), 1) AS receiving_seconds,
        round(86400 * (julianday(segmenting_at) - julianday(queued_at)), 1) AS queued_seconds,
        round(86400 * (julianday(segmented_at) - julianday(segmenting_at)), 1) AS segmenting_seconds,
        round(86400 * (julianday(delivered_at) - julianday(segmented_at)), 1) AS delivering_seconds,
        round(86400 * (julianday(delivered_at) - julianday(created_at)), 1) AS total_seconds,
        (SELECT group_concat(told, ', ') FROM (
            SELECT printf('%s %.1f', stage, seconds) AS told
            FROM stage_times WHERE job_id = job ORDER BY stage_times.id)) AS segmenting_stages
    FROM (
        SELECT
            jobs.id AS job,
            patient_id,
            accession_number,
            calling_ae_title AS sender,
            instance_count AS images,
            created_at,
            (SELECT max(at) FROM job_events WHERE job_id = jobs.id
                AND to_state = 'queued' AND from_state = 'receiving') AS queued_at,
            (SELECT max(at) FROM job_events WHERE job_id = jobs.id
                AND to_state = 'segmenting' AND from_state = 'queued') AS segmenting_at,
            (SELECT max(at) FROM job_events WHERE job_id = jobs.id
                AND to_state = 'segmented' AND from_state = 'segmenting') AS segmented_at,
            (SELECT max(at) FROM job_events WHERE job_id = jobs.id
                AND to_state = 'delivered' AND from_state = 'segmented') AS delivered_at
        FROM jobs
    )
    WHERE delivered_at IS NOT NULL
"""
