"""Programs that print the figures which the README and the notes state; see README.md beside this file."""
