"""What a user may add to the loop without touching it: seven calls, in the order of the config."""
