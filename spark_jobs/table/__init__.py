"""A user's table: how it is laid out, what is in it, which columns are features."""
