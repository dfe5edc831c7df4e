"""The library `trees`: boosted trees as a JSON document, their model, and a walk of trees of any size."""
