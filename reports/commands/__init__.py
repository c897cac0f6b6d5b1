"""The commands that read results."""
