"""The listening study: the page for the judges, and the score of their answers (paper, section 4.1)."""
