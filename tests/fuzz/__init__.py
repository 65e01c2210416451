"""Mutated inputs by the hundred thousand for everything that reads what others wrote; `python -m tests.fuzz`."""
