"""Runs functions over items in many workers; stands on ``progress``."""
