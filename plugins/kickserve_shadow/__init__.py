"""The plugin `shadow`: a second model is asked about every kick as well, off the path."""
