"""Real processes, real signals, real associations."""
