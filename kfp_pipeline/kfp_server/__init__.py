"""Talks to a KFP server: client, uploads, runs, recurring runs."""
