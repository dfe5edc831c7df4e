"""The library `trees`: boosted trees as a JSON document, and the model that answers from it."""
