"""Turnarounds that count no time in which a job waited for an operator alone, and which deliveries are wanted."""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Define both views anew."""
    for name, statement in _VIEWS.items():
        op.execute(f"DROP VIEW {name}")
        op.execute(f"CREATE VIEW {name} AS {statement}")


_VIEWS = {
    # A try that failed and was begun anew is in the total alone; so is the time of a job that was held.
    # Each moment is one look into an index. All events grouped at once would be read before the newest is told.
    "v_turnaround": """
        SELECT
            job,
            patient_id,
            accession_number,
            sender,
            images,
            datetime(created_at) AS received_utc,
            datetime(delivered_at) AS delivered_utc,
            round(86400 * (julianday(received_at) - julianday(created_at)), 1) AS receiving_seconds,
            round(86400 * (julianday(segmenting_at) - julianday(queued_at)), 1) AS queued_seconds,
            round(86400 * (julianday(contoured_at) - julianday(segmenting_at)), 1) AS segmenting_seconds,
            round(86400 * (julianday(delivered_at) - julianday(due_at)), 1) AS delivering_seconds,
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
                    AND from_state = 'receiving' AND to_state <> 'receiving') AS received_at,
                (SELECT max(at) FROM job_events WHERE job_id = jobs.id
                    AND to_state = 'queued' AND from_state <> 'queued') AS queued_at,
                (SELECT max(at) FROM job_events WHERE job_id = jobs.id
                    AND to_state = 'segmenting' AND from_state = 'queued') AS segmenting_at,
                (SELECT max(at) FROM job_events WHERE job_id = jobs.id
                    AND to_state IN ('segmented', 'held') AND from_state = 'segmenting')
                    AS contoured_at,
                (SELECT min(at) FROM job_events WHERE job_id = jobs.id
                    AND to_state = 'segmented' AND from_state IN ('segmenting', 'held')) AS due_at,
                (SELECT min(at) FROM job_events WHERE job_id = jobs.id
                    AND to_state = 'delivered' AND from_state = 'segmented') AS delivered_at
            FROM jobs
        )
        WHERE delivered_at IS NOT NULL
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
            result_sop_instance_uid,
            jobs.state AS job_state
        FROM deliveries JOIN jobs ON jobs.id = job_id
    """,
}
