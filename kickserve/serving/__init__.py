"""Runs the application: the server and its connections, their limits, workers, the log."""
