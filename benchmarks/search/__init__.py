"""Programs that compare searches: samplers, pruners and both together, on problems whose answer is known."""
