"""The library `client`: the client of a running service, for programs and for commands."""
