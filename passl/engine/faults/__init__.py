"""What can go wrong while a run trains: lost processes, bad numbers, restarts, how it ended."""
