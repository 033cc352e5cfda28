"""Properties are checked without a clock, as a busy machine is no failure, and with few examples.

``pytest tests/unit --hypothesis-profile=thorough`` takes minutes and looks further.
"""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("quick", deadline=None, max_examples=40)
settings.register_profile("thorough", deadline=None, max_examples=2_000)
settings.load_profile("quick")
