"""A search by Katib: the Experiment, its trials, and what they found."""
