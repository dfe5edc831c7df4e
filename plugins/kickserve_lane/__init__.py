"""The plugin `lane`: `POST /api/v1/predict` around the router, and the limits of connections."""
