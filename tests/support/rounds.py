"""How far tests look whose faults depend on chance or on time."""

from __future__ import annotations

import os

ROUNDS = int(os.environ.get("SPEEDY_UTILS_ROUNDS", "1"))
"""How often they run, or how much of it: once, unless the environment asks for more."""
