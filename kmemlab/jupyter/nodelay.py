"""A connection to the kernel that sends at once; for JupyterLab's server, not for the engine.

The server leaves Nagle's algorithm on: of two small messages the second waits until the browser has acknowledged the
first, up to 40 ms later. A panel's answer is always the second: "busy" comes before it.
"""

from __future__ import annotations

from typing import Any

from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection

__all__ = ["NoDelay"]


class NoDelay(ZMQChannelsWebsocketConnection):
    """The server's own connection with TCP_NODELAY set."""

    def connect(self) -> Any:
        """Connect to the kernel as ever."""
        self.websocket_handler.set_nodelay(True)
        return super().connect()
