"""Prefect tasks: load, call the library, save, return a reference. No tensor leaves a task."""
