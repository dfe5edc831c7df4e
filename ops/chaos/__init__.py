"""Drills: `just chaos NAME`."""
