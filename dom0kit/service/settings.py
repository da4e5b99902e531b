# SPDX-License-Identifier: MIT
"""What /etc/dom0kit says: plans to apply, the policy of hotplug, and what the service itself shall do.

    /etc/dom0kit/service.toml       all of it may be left out
        [metrics]
        textfile = "/var/lib/prometheus/node-exporter/dom0kit.prom"     # written for node_exporter; default: not at all
        seconds = 15                                                    # how often
        [plans]
        irreversible = false                                            # true: also what cannot be undone
    /etc/dom0kit/plans/*.json       plans (dom0kit irq plan -o, dom0kit partition plan -o), applied in order of names
    /etc/dom0kit/hotplug.toml       as dom0kit.hotplug.policy says; without it dom0's drivers keep whatever comes

Whoever may write these files decides what root does. So they must be root's, and nobody else's to write.
"""

from __future__ import annotations

import os
import stat
import tomllib
from typing import Annotated, Final

import msgspec

from dom0kit.hotplug.policy import Action, BadPolicy, HotplugPolicy, read_policy
from dom0kit.plan import Plan
from dom0kit.serial import UndecodableJson, decode

FOLDER: Final = "/etc/dom0kit"
KEEP_ALL: Final = HotplugPolicy(default=Action.KEEP)
_MOST_PLANS: Final = 1000
_MOST_BYTES: Final = 256 << 20
_MOST_TEXT: Final = 1 << 20


class BadSettings(Exception):
    """A file cannot be used; the message names it and says why."""


class Metrics(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where Prometheus finds numbers."""

    textfile: Annotated[str, msgspec.Meta(pattern=r"^/.*\.prom$", max_length=4000)] | None = None
    seconds: Annotated[float, msgspec.Meta(ge=1, le=86_400)] = 15


class _Plans(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    irreversible: bool = False


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    metrics: Metrics = Metrics()
    plans: _Plans = _Plans()


class NamedPlan(msgspec.Struct, frozen=True):
    """A plan and the name of its file."""

    name: str
    plan: Plan


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All of the folder."""

    plans: tuple[NamedPlan, ...] = ()
    irreversible: bool = False
    """Plans may do what cannot be undone."""
    hotplug: HotplugPolicy = KEEP_ALL
    metrics: Metrics = Metrics()


def read_settings(folder: str = FOLDER) -> Settings:
    """Everything in the folder; where there is none, the service's defaults. BadSettings."""
    _check_folder(folder)
    own, policy = _read(f"{folder}/service.toml", _MOST_TEXT), _read(f"{folder}/hotplug.toml", _MOST_TEXT)
    try:
        file = _File() if own is None else msgspec.convert(tomllib.loads(own.decode()), _File)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError, RecursionError) as error:
        raise BadSettings(f"{folder}/service.toml: {error}") from error
    try:
        hotplug = KEEP_ALL if policy is None else read_policy(policy)
    except BadPolicy as error:
        raise BadSettings(f"{folder}/hotplug.toml: {error}") from error
    return Settings(
        plans=_plans(f"{folder}/plans"),
        irreversible=file.plans.irreversible,
        hotplug=hotplug,
        metrics=file.metrics,
    )


def _plans(folder: str) -> tuple[NamedPlan, ...]:
    _check_folder(folder)
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".json") and not name.startswith("."))
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise BadSettings(f"{folder} cannot be read: {error.strerror}") from error
    if len(names) > _MOST_PLANS:
        raise BadSettings(f"{folder} holds {len(names)} plans: {_MOST_PLANS} at most")
    plans = []
    for name in names:
        data = _read(f"{folder}/{name}", _MOST_BYTES)
        try:
            plans.append(NamedPlan(name, decode(data or b"", Plan)))
        except UndecodableJson as error:
            raise BadSettings(f"{folder}/{name} is no plan: {error} (dom0kit irq plan makes one)") from error
    return tuple(plans)


def _read(path: str, most: int) -> bytes | None:
    """None where there is no such file."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadSettings(f"{path} cannot be read: {error.strerror}") from error
    with os.fdopen(file, "rb") as reader:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise BadSettings(f"{path} is no file")
        _check(status, path)
        data = reader.read(most + 1)
    if len(data) > most:
        raise BadSettings(f"{path} is larger than {most >> 20} MiB")
    return data


def _check_folder(path: str) -> None:
    try:
        _check(os.stat(path), path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise BadSettings(f"{path} cannot be read: {error.strerror}") from error


def _check(status: os.stat_result, path: str) -> None:
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
        raise BadSettings(f"{path} is not root's alone to write, so it is not believed: chown root, chmod go-w")
