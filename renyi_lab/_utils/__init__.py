"""Helpers shared by all stages: argument checks, random states, batches, figures."""
