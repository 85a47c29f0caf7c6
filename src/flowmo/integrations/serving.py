"""The app is served where gradio is installed, and says how to get it where it is not."""

from __future__ import annotations

import os

from ..errors import ConfigError
from .app import App


def need_gradio() -> None:
    """Raise ConfigError, with the way out, where gradio is missing; it is called before models are loaded."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        from . import gradio  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"the app needs gradio: pip install 'flowmo[app]' ({error})") from None


def serve(app: App, host: str, port: int | None, share: bool = False) -> None:
    """Serve the page of an app until it is stopped; see ``gradio.launch``. Raises ConfigError where that cannot be."""
    need_gradio()
    from . import gradio

    try:
        gradio.launch(app, host, port, share)
    except OSError as error:
        raise ConfigError(f"the page cannot be served: {error}; choose another --port") from None
