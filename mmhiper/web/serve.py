"""The server of the page, which only this machine reaches."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'  # before Gradio is loaded
os.environ['HF_HUB_DISABLE_TELEMETRY'] = '1'

import gradio as gr
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from mmhiper.studio.site import Site
from mmhiper.studio.uploads import MOST_BYTES
from mmhiper.web.look import CSS
from mmhiper.web.page import build_page

ADDRESS = '127.0.0.1'
# What the browser may load, whatever a page says: nothing from elsewhere.
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "connect-src 'self' data: blob:; object-src 'none'; "
    "frame-ancestors 'none'; form-action 'self'"
)
_HEADERS = [
    (b'content-security-policy', POLICY.encode()),
    (b'referrer-policy', b'no-referrer'),
]


class _Policy:
    """Sends the policy along with each answer."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def answer(message: Any) -> None:
            if message['type'] == 'http.response.start':
                message['headers'] = [*message.get('headers', []), *_HEADERS]
            await send(message)

        await self._app(scope, receive, answer)


def serve(
    root: Path,
    port: int | None,
    pretrained: str | None,
    open_browser: bool,
    **defaults: int,
) -> None:
    """Serves until the process is told to stop; then trainings save."""
    fonts = ['system-ui', 'sans-serif']
    theme = gr.themes.Default(font=fonts, font_mono=['monospace'])
    guards = [
        Middleware(_Policy),
        Middleware(
            TrustedHostMiddleware, allowed_hosts=[ADDRESS, 'localhost']
        ),
    ]
    with tempfile.TemporaryDirectory(prefix='mmhiper-web-') as uploads:
        os.environ['GRADIO_TEMP_DIR'] = uploads
        site = Site(root, Path(uploads), pretrained, **defaults)
        page = build_page(site)
        try:
            _, address, _ = page.queue(api_open=False).launch(
                server_name=ADDRESS,
                server_port=port,
                share=False,
                inbrowser=open_browser,
                quiet=True,
                prevent_thread_lock=True,
                max_file_size=MOST_BYTES,
                enable_monitoring=False,
                # a variable of the environment turns these on
                ssr_mode=False,
                mcp_server=False,
                theme=theme,
                css=CSS,
                app_kwargs=dict(middleware=guards),
            )
            print(
                f'Page       {address}\nWork dirs  {root.absolute()}\n'
                'Ctrl-C ends it; a training saves, and can go on.',
                flush=True,
            )
            while True:
                time.sleep(1)
        finally:
            site.jobs.close()
            page.close(verbose=False)
