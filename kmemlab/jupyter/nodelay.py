"""A server extension: answers of a kernel are sent at once; for Jupyter's server, not for the engine.

The server leaves Nagle's algorithm on: of two small messages the second waits until the browser has acknowledged the
first, up to 40 ms later. A panel's answer is always the second: "busy" comes before it. The wheel's configuration file
switches the extension on wherever kmemlab is installed beside the server, as Binder's image has it.
"""

from __future__ import annotations

from typing import Any

from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection

__all__ = ["NoDelay"]

CONNECTION = "kernel_websocket_connection_class"


class NoDelay(ZMQChannelsWebsocketConnection):
    """The server's own connection with TCP_NODELAY set."""

    def connect(self) -> Any:
        """Connect to the kernel as ever."""
        self.websocket_handler.set_nodelay(True)
        return super().connect()


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    """Where the server finds the extension."""
    return [{"module": "kmemlab.jupyter.nodelay"}]


def _load_jupyter_server_extension(app: Any) -> None:
    """Take the place of the server's own connection; another one, a gateway's, stays."""
    settings = app.web_app.settings
    if settings.get(CONNECTION) is ZMQChannelsWebsocketConnection:
        settings[CONNECTION] = NoDelay
