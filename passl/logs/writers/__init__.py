"""Where figures and pictures of a run can go: one small interface, one file for each program."""
