"""The commands: argument parsing and one call each."""
