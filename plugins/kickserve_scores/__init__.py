"""The library `scores`: Brier score, log loss, ECE, AUC, reliability, and Shapley values."""
