"""Many trainings with one table: systems times seeds, trained, measured, and set beside the paper's rows."""
