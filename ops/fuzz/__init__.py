"""Attacks: `just fuzz NAME`."""
