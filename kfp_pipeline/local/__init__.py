"""A run that this machine drives, and past runs: kept, compared, judged."""
