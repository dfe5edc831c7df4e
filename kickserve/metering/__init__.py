"""What the service counts of itself, in memory that workers share."""
