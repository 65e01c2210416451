"""Runs the revisions on the connection that `daemon.job_queue_engine.migrate` hands over."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], render_as_batch=True)
context.run_migrations()
