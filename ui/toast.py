"""Messages that come and go. Gradio draws what they say as HTML, and they may repeat what a dropped file says; here it is text."""

from html import escape

import gradio as gr


def warning(said: object, title: str) -> None:
    gr.Warning(escape(str(said), quote=False), title=title)


def info(said: object, title: str = "Info") -> None:
    gr.Info(escape(str(said), quote=False), title=title)
