"""Scores of captions and speech, transcribers, and the tables they fill."""
