"""What was once written, and must be read and decided the same for ever: event samples and whole histories."""
