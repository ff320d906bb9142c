"""`torch.compile` with a backend that counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._dynamo.trace_rules import get_torch_obj_rule_map
from torch._dynamo.variables.torch import TorchInGraphFunctionVariable


def compile_with(counter: Any) -> Callable[..., Any]:
    """`torch.compile` by a different backend; `mode` is for torch's own."""
    # The compiler builds its tables of torch's functions once, and again after `init_process_group`. Built while
    # `torch.compile` is replaced, they would lack it for all later tests of the process.
    TorchInGraphFunctionVariable._get_handlers()
    get_torch_obj_rule_map()
    compile_as_given = torch.compile
    return lambda function, *, mode=None, **options: compile_as_given(function, backend=counter, **options)
