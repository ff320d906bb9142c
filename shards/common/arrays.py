"""`NumPyArray`: the type of a numpy array; the docstring beside each use gives shape and dtype."""

from __future__ import annotations

from typing import Any

import numpy as np

NumPyArray = np.ndarray[Any, Any]
