"""Encode the shards of a corpus with Ray Data: actors that own the model, each with its CPUs or GPUs."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from text2token.search.shards.encode import ShardEncoder, ShardJob
from text2token.utils.errors import UserError, first_line, requires_extra
from text2token.utils.progress import progress_bar

_PATIENCE = 10  # seconds to wait for a cluster
_STORE = 100 * 2**20  # bytes of memory that processes share, about the least that Ray takes; only numbers go through it
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class RayCluster:
    """What runs the shards.

    Attributes:
        address: Address of a running cluster, as ``ray://host:10001`` or ``auto``; None: one on this machine is started.
        actors: Number of actors. Each holds the model and encodes one shard at a time.
        cpus: CPUs of an actor, and its threads.
        gpus: GPUs of an actor; a fraction shares one.
    """

    address: str | None = None
    actors: int = 1
    cpus: int = 1
    gpus: float = 0.0


def encode_shards_on_ray(job: ShardJob, cluster: RayCluster, *, progress: bool = False) -> int:
    """Encode all shards that have no file yet. Returns the number of documents that were encoded.

    When an actor dies, Ray starts another one, which encodes the shard again. When this process dies, call the function again:
    finished shards are not encoded a second time.

    Args:
        job: What to encode. Model, documents and folder have the same names on all machines.
        cluster: What runs the shards.
        progress: Show a progress bar.

    Raises:
        UserError: Ray is not installed or its cluster is not there, or the errors of
            :class:`text2token.search.shards.encode.ShardEncoder`.
    """
    with requires_extra("ray"):
        import ray
        import ray.data
    missing = ShardEncoder(job).missing()
    if not missing:
        return 0
    with _connected(cluster), progress_bar(enabled=progress) as bar:
        task = bar.add_task("Shards", total=len(missing), unit="shards", note="")
        encoded = 0
        shards = ray.data.from_items([{"shard": shard} for shard in missing], override_num_blocks=len(missing))
        finished = shards.map_batches(
            _Actor,
            fn_constructor_args=(job, cluster.cpus),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(cluster.actors, len(missing))),
            num_cpus=cluster.cpus,
            num_gpus=cluster.gpus,
        )
        for row in finished.iter_rows():
            if row["refusal"]:
                raise UserError(row["refusal"])
            encoded += row["documents"]
            bar.advance(task)
    return encoded


class _Actor:
    """A process of the cluster that holds the model."""

    def __init__(self, job: ShardJob, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._job = job

    @cached_property
    def _encoder(self) -> ShardEncoder:
        """The model. It is opened with the first shard, where an error can be handed on."""
        return ShardEncoder(self._job)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Encode one shard. What the user did wrong is returned as a sentence, which survives the way to the caller."""
        try:
            documents, refusal = self._encoder.encode_if_missing(int(batch["shard"][0])), ""
        except UserError as error:
            documents, refusal = 0, str(error)
        return {"documents": [documents], "refusal": [refusal]}


@contextmanager
def _connected(cluster: RayCluster) -> Iterator[None]:
    """Connect to the cluster, or start one."""
    import ray
    import ray.data

    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # else it warns of what Ray Data itself does
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if cluster.address is None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would be sent over the network
        cpus = cluster.actors * cluster.cpus + 1  # one more for Ray Data itself
        quiet |= {"address": "local", "num_cpus": cpus, "include_dashboard": False, "object_store_memory": _STORE}
    else:
        quiet |= {"address": cluster.address}
    try:
        _check_answers(cluster.address or "")
        ray.init(**quiet)
    except (OSError, ValueError) as error:
        reason = first_line(error).rstrip(".")
        raise UserError(
            f"There is no Ray cluster at '{cluster.address}' ({reason}): check its address and, if it asks for a token, "
            "RAY_AUTH_MODE and RAY_AUTH_TOKEN."
        ) from error
    if not _has_room(cluster):
        _LOGGER.warning(
            "No machine of the Ray cluster has room for an actor (CPU: %g, GPU: %g): Ray waits until one joins.",
            cluster.cpus, cluster.gpus,
        )  # fmt: skip
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # the exception says what its log says
    try:
        yield
    finally:
        ray.shutdown()


def _has_room(cluster: RayCluster) -> bool:
    """Return whether an actor fits on a machine of the cluster. Otherwise Ray waits, since a machine may join."""
    import ray

    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return any(own.get("CPU", 0) >= cluster.cpus and own.get("GPU", 0) >= cluster.gpus for own in machines)


def _check_answers(address: str) -> None:
    """Check that something answers at ``host:port`` or ``ray://host:port``: where nothing does, Ray ends the whole process.

    Raises:
        OSError: Nothing answers.
    """
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), _PATIENCE).close()
