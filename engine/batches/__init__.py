"""Batches of requests to OpenAI's endpoints: their lines become jobs, and what became of those two files."""
