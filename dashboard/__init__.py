"""Floor 5: what people see: the command line, views and read models; does not know how a model is called."""
