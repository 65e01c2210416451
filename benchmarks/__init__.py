"""Comparisons with other programs, and the figures behind docs/."""

MODULES = (
    "reception",
    "turnaround",
    "network",
    "contours",
    "reading",
    "metrics",
    "scale",
    "memory",
    "start",
)
"""What `python -m benchmarks` runs, in the order of docs/performance.md; each is `python -m benchmarks.NAME`."""
