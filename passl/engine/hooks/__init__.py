"""What a user may add to the loop without touching it: six calls, in the order of the config."""
