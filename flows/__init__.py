"""Prefect flows, and the doors to them: the command line and, later, the webhook receiver."""
