"""The library `scores`: Brier score, log loss, ECE, AUC, Shapley values; learning, the table of kickers."""
