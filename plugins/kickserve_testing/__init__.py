"""The library `testing`: the contract of stores (`contract`), and an application for tests (`app`)."""
