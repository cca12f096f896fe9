"""Mixed load for some minutes on a real Forgeline, and whether memory is flat and everything comes back."""
