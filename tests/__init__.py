"""Tests of oarlock, the phantoms and peers they stand on, and the demonstration."""
