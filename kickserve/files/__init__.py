"""Reads and writes kicks as CSV, Parquet and NDJSON."""
