"""A turnaround ends when a job was delivered first, whatever an operator has sent again since."""

from alembic import op

revision = "0007"
down_revision = "0006"

_MOMENT = "SELECT {}(at) FROM job_events WHERE job_id = jobs.id\n                AND to_state = 'delivered'"


def upgrade() -> None:
    """Take the first delivery in the view instead of the last."""
    view = "SELECT sql FROM sqlite_master WHERE type = 'view' AND name = 'v_turnaround'"
    before = str(op.get_bind().exec_driver_sql(view).scalar_one())
    after = before.replace(_MOMENT.format("max"), _MOMENT.format("min"))
    assert after != before, "the view is that of the revision before"
    op.execute("DROP VIEW v_turnaround")
    op.execute(after)
