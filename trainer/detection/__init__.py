"""The built-in detection core: data, model, loss, evaluation and the training itself."""
