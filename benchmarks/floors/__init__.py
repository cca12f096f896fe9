"""What Forgeline is held against: programs that do the least that the same work takes."""
