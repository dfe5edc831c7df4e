"""What goes over HTTP: bodies, answers, problems, documentation, and what stands around every request."""
