"""The implementations of the model port, one file each; ``agents.model.open_model`` imports them on demand."""
