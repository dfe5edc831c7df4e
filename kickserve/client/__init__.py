"""The client of a running service: for programs, and for the commands."""
