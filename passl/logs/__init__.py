"""What a run says: lines for people, records for machines, curves, a live line on a terminal."""
