"""Runs behind HTTP: the OpenAI-compatible routes, predictions, explanations, recommendations and a page to try them."""
