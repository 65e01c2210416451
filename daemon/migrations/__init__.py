"""The schema of the job table, one revision after the other."""
