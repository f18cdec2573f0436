"""Groups: who reads which part of the log, what is done with it in order, and what becomes of a record that fails."""
