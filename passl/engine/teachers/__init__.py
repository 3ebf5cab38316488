"""Models that teach others: what is known of one, running it, and the loss it gives."""
