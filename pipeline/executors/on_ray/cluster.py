"""Connecting to a Ray cluster, or starting one on this machine."""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import ray
from ray._private import parameter, ray_constants, services, state, utils
from ray._raylet import GcsClientOptions  # type: ignore[attr-defined]
from ray.exceptions import AuthenticationError, RayError

from colophon.pipeline.errors import UsageError
from colophon.pipeline.executors.worker import WORKER_ENVIRONMENT
from colophon.pipeline.recipe.schema import RaySection
from colophon.shards.common.errors import ColophonError

_LOCAL_OBJECT_STORE_BYTES = 100 << 20  # tasks and records are small; texts never pass through Ray


_LOOK_EVERY_SECONDS = 0.02


_START_SECONDS = 30.0


TOKEN_HELP = "set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH to a file with it"


def connect(config: RaySection, *, log: Callable[[str], None]) -> None:
    """Attach to the cluster that `RAY_ADDRESS` or the recipe names, or start one on this machine's loopback.

    Raises:
        UsageError: no cluster answers at the address.
    """
    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS") or config.address
    try:
        if address:
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
            log(f"ray: attached to {address}, {num_cpus()} CPUs")
        else:
            _start_local(config)
            log(f"ray: started on this machine, {num_cpus()} workers")
    except AuthenticationError as error:
        raise UsageError(f"ray: the cluster at {address} asks for a token: {TOKEN_HELP}") from error
    except (ConnectionError, RayError, ValueError, RuntimeError) as error:
        raise UsageError(f"ray: no cluster at {address}: {str(error).splitlines()[0]}") from error


def _start_local(config: RaySection) -> None:
    # Ray's own switch for clusters of one machine, its default on macOS: the node's address is loopback.
    ray_constants.ENABLE_RAY_CLUSTER = False
    # Processes that Ray starts ahead of the actors import numpy before an actor could set anything.
    with _environment({"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", **WORKER_ENVIRONMENT}), _few_processes():
        ray.init(
            num_cpus=config.num_workers or os.cpu_count() or 1,
            num_gpus=0,  # else it looks for them
            include_dashboard=False,
            object_store_memory=_LOCAL_OBJECT_STORE_BYTES,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for processes that are started meanwhile; this process's own are put back."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _few_processes() -> Iterator[None]:
    """A cluster of this machine alone needs no autoscaler and no dashboard, and nobody follows its logs or metrics.

    170 MB and two seconds less. Ray has no public switch for all of that; a Ray without these names starts them all.
    """
    with ExitStack() as undo:
        for module, name, instead in (
            (
                parameter,
                "RayParams",
                functools.partial(parameter.RayParams, no_monitor=True, include_log_monitor=False),
            ),
            (services, "start_api_server", lambda *_, **__: (None, None)),  # as if it had failed to start
            (services, "get_node", functools.partial(_found_soon, vars(services).get("get_node"))),
            (ray_constants, "RAY_ENABLE_UV_RUN_RUNTIME_ENV", False),  # workers have this process's environment anyway
            (utils, "get_dashboard_dependency_error", lambda: ImportError("left out")),  # as if ray had no [default]
        ):
            if hasattr(module, name):
                undo.callback(setattr, module, name, getattr(module, name))
                setattr(module, name, instead)
        yield


def _found_soon(get_node: Callable[[str, str], Any], gcs_address: str, node_id: str) -> Any:
    """What `get_node` returns, which looks for the node once a second, called when the node is there.

    Raises:
        RuntimeError: it is not there after `_START_SECONDS`.
    """
    known = state.GlobalState()
    known._initialize_global_state(GcsClientOptions.create(gcs_address, None, True, False))
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and all(node["NodeID"] != node_id for node in known.node_table()):
        time.sleep(_LOOK_EVERY_SECONDS)
    return get_node(gcs_address, node_id)


def num_cpus() -> int:
    """The CPUs of the connected cluster, at least 1."""
    return max(int(ray.cluster_resources().get("CPU", 1)), 1)


def disconnect() -> None:
    """Leave the cluster; one that `connect` started ends."""
    ray.shutdown()


def check_nodes() -> None:
    """Actors of a cluster that is no more would be waited for without end.

    Raises:
        ColophonError: no node is alive.
    """
    if not any(node["Alive"] for node in ray.nodes()):
        raise ColophonError("ray: no node of the cluster is alive; run the same command again to go on")
