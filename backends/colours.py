"""Colours that stand for values, from night over ember to cream."""

import numpy as np

STOPS = np.array([(18, 16, 30), (84, 28, 104), (196, 60, 84), (250, 150, 70), (252, 244, 190)], float)


def warm(values: np.ndarray) -> np.ndarray:
    """Values from 0 to 1 of any shape -> (…, 3) uint8."""
    level = np.clip(values, 0, 1) * (len(STOPS) - 1)
    low = np.minimum(level.astype(int), len(STOPS) - 2)
    return (STOPS[low] + (level - low)[..., None] * (STOPS[low + 1] - STOPS[low])).astype(np.uint8)
