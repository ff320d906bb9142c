"""The type of a numpy array, of any shape and dtype; docstrings name both."""

from __future__ import annotations

from typing import Any

import numpy as np

NumPyArray = np.ndarray[Any, Any]
