"""The model registry: versions that never change, and for each model one pointer to its champion, in a directory or an object store."""
