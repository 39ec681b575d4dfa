"""The server extension: a panel's answers leave the server at once, wherever kmemlab is installed beside it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jupyter_server.extension.manager import ExtensionManager
from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection

from kmemlab.jupyter import nodelay

CONFIG = json.loads((Path(__file__).resolve().parent.parent / "jupyter_server_config.json").read_text(encoding="utf-8"))


class Gateway:
    """Stands for the connection of a server that has its kernels elsewhere."""


@pytest.mark.parametrize(("before", "after"), [(ZMQChannelsWebsocketConnection, nodelay.NoDelay), (Gateway, Gateway)])
def test_only_the_servers_own_connection_is_replaced(before: type, after: type) -> None:
    """A gateway's connection stays what it is."""
    settings: dict[str, Any] = {nodelay.CONNECTION: before}
    nodelay._load_jupyter_server_extension(SimpleNamespace(web_app=SimpleNamespace(settings=settings)))
    assert settings == {nodelay.CONNECTION: after}


def test_the_configuration_names_an_extension_that_the_server_finds() -> None:
    """What the wheel puts into etc/jupyter is switched on, and loads."""
    (name,) = CONFIG["ServerApp"]["jpserver_extensions"]
    assert CONFIG["ServerApp"]["jpserver_extensions"][name] is True
    manager = ExtensionManager()
    assert manager.add_extension(name, enabled=True)
    (point,) = manager.extensions[name].extension_points.values()
    assert point.validate()


def test_the_wire_is_told_before_the_kernel_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """TCP_NODELAY is set on the browser's connection, then it connects as ever."""
    told: list[Any] = []
    monkeypatch.setattr(ZMQChannelsWebsocketConnection, "connect", lambda self: told.append("connect"))
    monkeypatch.setattr(nodelay.NoDelay, "websocket_handler", SimpleNamespace(set_nodelay=told.append))
    nodelay.NoDelay.connect(nodelay.NoDelay.__new__(nodelay.NoDelay))
    assert told == [True, "connect"]
