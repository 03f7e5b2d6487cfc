"""The page: what is dropped or typed goes through one Translator; errors are the one line that they are."""

import html
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from skipmodal.demo.show import draw_seen, draw_speech, to_image, translate
from skipmodal.errors import UserError
from skipmodal.translate import Translator

NO_STUDY = "Make one with `skipmodal study make`, and start this page with `--study study.html`."
CSS = "footer { display: none !important } iframe { width: 100%; height: 80vh; border: 0 }"


def serve(translator: Translator, *, host: str, port: int, max_mb: int, study: str | None) -> str:
    """Starts the server in the background and returns the page's address. `study` is a page of `study make`.

    Raises UserError where the port is taken.
    """
    page = build(translator, study)
    try:
        _, address, _ = page.queue(default_concurrency_limit=1).launch(
            server_name=host, server_port=port, max_file_size=f"{max_mb}mb", share=False, quiet=True, inbrowser=False,
            prevent_thread_lock=True, footer_links=[], theme=_theme(), css=CSS, ssr_mode=False,
        )  # fmt: skip
    except OSError as error:
        raise UserError(f"--port {port}: cannot be opened on {host}; give another") from error
    return address.rstrip("/")


def build(translator: Translator, study: str | None) -> gr.Blocks:
    """One tab for each source, and one for the listening study."""
    with gr.Blocks(title="skipmodal", analytics_enabled=False) as page:
        gr.Markdown("# skipmodal\nTranslates between image, text and speech, on this machine.")
        with gr.Tab("Photo"), gr.Row():
            with gr.Column():
                photo = _as_dropped(gr.Image(label="Photo", sources=["upload", "webcam", "clipboard"], elem_id="photo"))
                describe = gr.Button("Say what it shows", variant="primary")
                sentence, confidence = gr.Textbox(label="Sentence"), gr.Textbox(label="Confidence")
            with gr.Column():
                heard = _player("photo-speech")
                sound = _figure("The sound, word by word", "photo-sound")
                seen = _figure("Where it looked, word by word", "photo-seen")
        with gr.Tab("Text"), gr.Row():
            with gr.Column():
                typed = gr.Textbox(label="Sentence", placeholder="A dog runs on the beach.", max_length=1000)
                say = gr.Button("Say and draw it", variant="primary")
            with gr.Column():
                said = _player("text-speech")
                said_sound = _figure("The sound, word by word", "text-sound")
                drawn = gr.Image(label="Picture", interactive=False, height=256)
        with gr.Tab("Speech"), gr.Row():
            with gr.Column():
                recording = _as_dropped(
                    gr.Audio(label="Recording", sources=["upload", "microphone"], elem_id="recording")
                )
                write = gr.Button("Write it down and draw it", variant="primary")
            with gr.Column():
                written = gr.Textbox(label="Sentence")
                pictured = gr.Image(label="Picture", interactive=False, height=256)
        with gr.Tab("Listening study"):
            gr.HTML(f'<iframe title="Listening study" srcdoc="{html.escape(study)}"></iframe>') if study else (
                gr.Markdown(NO_STUDY)
            )

        describe.click(_told(translator, _from_photo), photo, [sentence, confidence, heard, sound, seen])
        say.click(_told(translator, _from_text), typed, [said, said_sound, drawn])
        write.click(_told(translator, _from_speech), recording, [written, pictured])
    return page


def _as_dropped(component: Any) -> Any:
    """Hands over the file as it was dropped, since the model's own reader says best what is wrong with one."""
    component.preprocess = lambda payload: payload.path if payload else None
    return component


def _figure(title: str, name: str) -> gr.Image:
    """A titled figure; a label would lie on it."""
    gr.Markdown(title)
    return gr.Image(show_label=False, interactive=False, buttons=["download", "fullscreen"], elem_id=name)


def _player(name: str) -> gr.Audio:
    return gr.Audio(label="Speech", buttons=["download"], elem_id=name)


def _from_photo(translator: Translator, path: str | None) -> tuple[Any, ...]:
    if path is None:
        raise UserError("no photo yet: drop one, or take one with the webcam")
    result, latent = translate(translator, Path(path), "image", "speech")
    sentence = result.text or ""
    # D_txt did not choose the words of a name, so what it attends to says nothing about it.
    seen = draw_seen(translator, Path(path), latent, sentence) if sentence and not result.named else None
    confidence = "not calibrated" if result.confidence is None else f"{result.confidence:.2f}"
    confidence += ", of a picture unlike those that the model was trained on" if result.unfamiliar else ""
    rate, wav = translator.audio.sample_rate, result.value
    sound = to_image(draw_speech(wav, translator.audio, result.words or ()))  # type: ignore[arg-type]
    return sentence, confidence, (rate, _samples(wav)), sound, to_image(seen) if seen else None


def _from_text(translator: Translator, sentence: str) -> tuple[Any, ...]:
    result = translator.text2speech(sentence)
    picture = translator.text2img(sentence)
    sound = to_image(draw_speech(result.value, translator.audio, result.words or ()))  # type: ignore[arg-type]
    return (translator.audio.sample_rate, _samples(result.value)), sound, picture.value


def _from_speech(translator: Translator, path: str | None) -> tuple[Any, ...]:
    if path is None:
        raise UserError("no recording yet: speak into the microphone, or drop a file")
    result, latent = translate(translator, Path(path), "speech", "text")
    (picture,) = translator.decode(latent, "image")
    return result.value, picture.value


def _told(translator: Translator, function: Callable[..., tuple[Any, ...]]) -> Callable[[Any], tuple[Any, ...]]:
    """A handler of the page: what the user can fix is shown in one line, without the folder of the upload."""

    def handler(given: Any) -> tuple[Any, ...]:
        try:
            return function(translator, given)
        except UserError as error:
            message = str(error).replace(f"{Path(str(given)).parent}/", "")
            raise gr.Error(html.escape(message), print_exception=False) from error

    return handler


def _samples(wav: Any) -> Any:
    """16-bit samples, which the player takes as they are."""
    return (wav * 32767).astype("int16")


def _theme() -> gr.themes.Base:
    """Fonts of the machine: nothing is fetched from elsewhere."""
    return gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
