"""What one round of one side is: each a call that takes the world and an effort, and returns an Outcome."""
