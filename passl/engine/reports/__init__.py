"""What a run says while it runs: the terminal, the log, dashboards and the pictures in them."""
