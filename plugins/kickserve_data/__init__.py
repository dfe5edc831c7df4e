"""The library `data`: reads and writes kicks, and predicts many of them, here or on a cluster."""
