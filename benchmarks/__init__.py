"""Scripts that print a table of time and memory; measurements for people to read, never timed tests."""
