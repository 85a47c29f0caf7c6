"""``from_pretrained``, ``save_pretrained`` and ``push_to_hub`` for tokenizers and generators.

Users of the Hugging Face hub know these methods. They read and write a folder of ``config.json``,
``model.safetensors`` and a model card. Higher layers know the files of a model, and these methods import them only
when they are called.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Self

import torch

from .config import to_json
from .errors import WeightsError
from .files import replacing
from .hub import WEIGHTS, client


class Pretrained:
    """A model with the methods by which other libraries load, save and upload theirs."""

    @classmethod
    def from_pretrained(
        cls, name: str | Path = "", *, device: str | torch.device = "cpu", revision: str | None = None
    ) -> Self:
        """Return a model ready to use.

        name: a folder of :meth:`save_pretrained`, or anything that ``flowmo.load`` and ``load_generator`` take, such
        as ``owner/name`` of the hub; without it, the packaged model.
        revision: a branch, tag or commit of a repository on the hub.
        Raises WeightsError for a model that cannot be found or read.
        """
        return _read(cls, name, device, revision)

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        dtype: torch.dtype = torch.float16,
        result: str | Path | None = None,
        license: str = "other",
        about: dict[str, Any] | None = None,
    ) -> Path:
        """Write ``config.json``, ``model.safetensors`` and the model card ``README.md``, and return the folder.

        dtype: of the stored weights.
        result: a file that ``flowmo evaluate`` wrote, whose numbers and conventions go into the card.
        license: an identifier of the hub's.
        about: anything JSON can hold, kept in the weights' header.
        Raises WeightsError for weights that are not finite in ``dtype``.
        """
        return _write(self, Path(folder), dtype, result, license, about)

    def push_to_hub(
        self,
        repository: str,
        *,
        private: bool | None = None,
        revision: str | None = None,
        message: str = "Upload a FlowMo model",
        **settings: Any,
    ) -> str:
        """Upload the folder of :meth:`save_pretrained` to the repository ``owner/name`` and return its address.

        The repository is made if need be.
        settings: of :meth:`save_pretrained`.
        The token is that of ``hf auth login`` or HF_TOKEN.
        Raises WeightsError where the upload fails.
        """
        return _push(self, repository, private, revision, message, settings)


def _read(kind: type, name: str | Path, device: str | torch.device, revision: str | None) -> Any:
    """Return a model of ``kind``; see :meth:`Pretrained.from_pretrained`."""
    from .tokenizer import FlowMo
    from .weights.load import PACKAGED, load

    if issubclass(kind, FlowMo):
        return load(name or PACKAGED, device=device, revision=revision)
    from .generation.files import PACKAGED_GENERATOR, load_generator

    return load_generator(name or PACKAGED_GENERATOR, device, revision)


def _write(
    model: Any, folder: Path, dtype: torch.dtype, result: str | Path | None, license: str, about: dict[str, Any] | None
) -> Path:
    """Write a model's folder; see :meth:`Pretrained.save_pretrained`."""
    from .tokenizer import FlowMo
    from .weights.card import generator_card, tokenizer_card
    from .weights.native import save_model

    if isinstance(model, FlowMo):
        card = tokenizer_card(model, license, None if result is None else Path(result))
        save_model(model, folder / WEIGHTS, dtype, about)
    else:
        from .generation.files import save_generator

        card = generator_card(model, license, None if result is None else Path(result))
        save_generator(model, folder / WEIGHTS, dtype, about)
    for name, text in (("config.json", to_json(model.config) + "\n"), ("README.md", card)):
        with replacing(folder / name) as part:
            part.write_text(text, encoding="utf-8")
    return folder


def _push(
    model: Any,
    repository: str,
    private: bool | None,
    revision: str | None,
    message: str,
    settings: dict[str, Any],
) -> str:
    """Upload a model's folder; see :meth:`Pretrained.push_to_hub`."""
    hub = client()
    api = hub.HfApi(library_name="flowmo")
    with tempfile.TemporaryDirectory(prefix="flowmo-") as folder:
        model.save_pretrained(folder, **settings)
        try:
            address = api.create_repo(repository, private=private, exist_ok=True)
            api.upload_folder(
                repo_id=address.repo_id,
                folder_path=folder,
                commit_message=message,
                revision=revision,
            )
        except Exception as error:  # the client's transport has errors of its own
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise WeightsError(
                f"could not upload to {repository} ({reason}); log in with 'hf auth login' with a token that may "
                "write, or save_pretrained to a folder and 'hf upload' it"
            ) from None
    return str(address)
