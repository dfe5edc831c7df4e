"""Makes models of kicks: nothing here is on the path of a request."""
