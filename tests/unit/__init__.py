"""One module at a time, without a database where that makes sense."""
