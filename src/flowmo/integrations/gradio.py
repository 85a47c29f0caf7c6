"""The page of ``flowmo app``, which codes a photograph in a few hundred bytes and draws images of classes.

Nothing on it is fetched from elsewhere, and nothing is reported to anybody. Needs ``pip install 'flowmo[app]'``.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from ..errors import FlowMoError
from ..generation import first_name
from .app import App

MOST_STEPS = 50
_FONT = ["system-ui", "sans-serif"]
THEME = gr.themes.Default(font=_FONT, font_mono=["ui-monospace", "monospace"])


def build(app: App) -> gr.Blocks:
    """Return the page of an app; ``launch`` shows it."""
    with gr.Blocks(title="FlowMo", analytics_enabled=False) as page:
        gr.Markdown("# FlowMo\nA photograph to a few hundred bytes, and back.")
        with gr.Tab("Photograph"):
            _photograph(app)
        if app.generator is not None:
            with gr.Tab("Classes"):
                _classes(app)
    return page


def launch(app: App, host: str, port: int | None, share: bool = False, block: bool = True) -> Any:
    """Serve the page of an app and return gradio's (app, local address, public address).

    port: a free one by default.
    share: asks gradio for a public address.
    block: says where the page is, and waits until the server ends.
    """
    page = build(app)
    served = page.launch(
        server_name=host, server_port=port, share=share, prevent_thread_lock=True, theme=THEME, quiet=True
    )
    if block:
        public = f" ({served[2]} from anywhere)" if served[2] else " (no public address could be had)" if share else ""
        print(f"open {served[1]} in a browser{public}; Ctrl-C ends it", flush=True)
        page.block_thread()
    return served


def _photograph(app: App) -> None:
    first_steps = min(app.models[0].config.sampler.num_steps, MOST_STEPS)
    with gr.Row():
        with gr.Column(scale=1):
            image = gr.Image(label="Photograph", type="pil", sources=["upload", "clipboard"], elem_id="photograph")
            rate = gr.Slider(
                0, max(1, len(app.models) - 1), value=0, step=1, label="Rate", info=_rates(app),
                interactive=len(app.models) > 1, elem_id="rate",
            )  # fmt: skip
            steps = gr.Slider(1, MOST_STEPS, value=first_steps, step=1, label="Steps", elem_id="steps")
            seed = gr.Number(0, label="Seed", precision=0, minimum=0, elem_id="seed")
            button = gr.Button("Code and decode", variant="primary", elem_id="code")
        with gr.Column(scale=2):
            divider = gr.ImageSlider(
                label="Original | reconstruction", type="pil", interactive=False, elem_id="divider"
            )
            facts = gr.Markdown(elem_id="facts")
            file = gr.DownloadButton("Download the .flowmo file", interactive=False, elem_id="download")

    def run(image: Any, rate: float, steps: float, seed: float) -> tuple[Any, str, Any]:
        try:
            coded = app.code(image, min(int(rate), len(app.models) - 1), int(steps), int(seed or 0))
        except FlowMoError as error:
            raise gr.Error(str(error), print_exception=False) from None
        lpips = "n/a" if coded.lpips is None else f"{coded.lpips:.3f}"
        text = (
            f"| bytes | with header | bits per pixel | PSNR | LPIPS | time |\n|---|---|---|---|---|---|\n"
            f"| **{coded.payload_bytes}** | {coded.file_bytes} | {coded.bits_per_pixel:.3f} | {coded.psnr:.2f} dB | "
            f"{lpips} | {coded.seconds:.2f} s |"
        )
        return (coded.original, coded.reconstruction), text, gr.DownloadButton(value=str(coded.file), interactive=True)

    inputs, outputs = [image, rate, steps, seed], [divider, facts, file]
    button.click(run, inputs, outputs)
    image.upload(run, inputs, outputs)


def _classes(app: App) -> None:
    with gr.Row():
        with gr.Column(scale=1):
            names = [(first_name(name), i) for i, name in enumerate(app.classes)]
            label = gr.Dropdown(names, value=0, label="Class", elem_id="class")
            count = gr.Slider(1, 16, value=4, step=1, label="Images", elem_id="count")
            guidance = gr.Slider(1, 12, value=6, step=0.5, label="Guidance", elem_id="guidance")
            seed = gr.Number(0, label="Seed", precision=0, minimum=0, elem_id="class-seed")
            button = gr.Button("Draw", variant="primary", elem_id="draw")
        with gr.Column(scale=2):
            gallery = gr.Gallery(label="Samples", columns=4, elem_id="samples", object_fit="contain", format="png")

    def run(label: int, count: float, guidance: float, seed: float) -> list[Any]:
        try:
            return app.draw(int(label), int(count), float(guidance), int(seed or 0))
        except FlowMoError as error:
            raise gr.Error(str(error), print_exception=False) from None

    button.click(run, [label, count, guidance, seed], gallery)


def _rates(app: App) -> str:
    if len(app.models) == 1:
        return f"this model has one: {app.rates[0]}"
    return "; ".join(f"{i}: {rate}" for i, rate in enumerate(app.rates))
