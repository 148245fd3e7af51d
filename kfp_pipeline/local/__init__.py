"""Runs that this machine starts and follows, and the comparison and the quality gate for past runs."""
