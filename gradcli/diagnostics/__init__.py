"""One file per question put to a run: numbers in, findings out. No printing and no files."""
