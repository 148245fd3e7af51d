"""Reads a user's table: its layout, the types of its cells, statistics of its columns, and which columns are features."""
