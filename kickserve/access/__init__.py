"""Who may come in, and how often: keys, scopes, rate limits, addresses."""
