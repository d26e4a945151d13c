"""Fetching an expert's files from a hub that speaks the real protocol on this machine."""

import hashlib
import http.server
import json
import os
import threading
from functools import partial

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file

from medbridge.cli import main
from medbridge.errors import ExpertError
from medbridge.experts import SENTENCE_ENCODERS, create_expert
from medbridge.experts.fetch import fetch_expert
from medbridge.experts.info import expert_info


class _Hub(http.server.BaseHTTPRequestHandler):
    """The part of the hub's protocol that its client uses: a repository's list of files, and files with their checksums."""

    files: dict
    requests: list
    ranges: list
    breaks: list

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, body):
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            repository = "/".join(parts[2:4])
            listing = [{"type": "file", "path": file, "oid": "0" * 40, "size": len(data)}
                       for (where, file), (data, _) in self.files.items() if where == repository]
            if "tree" not in parts:  # older clients ask for the whole card
                listing = {"id": repository, "sha": "0" * 40, "siblings": [{"rfilename": entry["path"]} for entry in listing]}
            return self._send(json.dumps(listing).encode(), {"Content-Type": "application/json"}, body)
        key = ("/".join(parts[:2]), "/".join(parts[4:]))
        if key not in self.files:
            return self._send(b"", {"X-Error-Code": "EntryNotFound"}, body, 404)
        data, checksum = self.files[key]
        if body:
            self.requests.append(key[1])
        headers, status = {"ETag": f'"{checksum}"', "X-Repo-Commit": "0" * 40, "Accept-Ranges": "bytes"}, 200
        if body and (asked := self.headers.get("Range")):
            first = int(asked.removeprefix("bytes=").split("-")[0])
            self.ranges.append(first)
            headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
            data, status = data[first:], 206
        if body and self.breaks:  # the line goes dead in the middle of the file
            self.breaks.pop()
            self._send(data[: len(data) // 2], headers | {"Content-Length": str(len(data))}, body, status)
            return self.connection.close()
        self._send(data, headers, body, status)

    def _send(self, data, headers, body, status=200):
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(data)


class _Files(dict):
    """What the hub holds; ``handler`` counts ranges, and breaks the line as often as ``handler.breaks`` is long."""

    handler: type


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub on this machine: ``hub[repository, file] = (bytes, checksum)``."""
    files, asked = _Files(), []
    handler = type("Handler", (_Hub,), {"files": files, "requests": asked, "ranges": [], "breaks": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("MEDBRIDGE_WEIGHTS", str(tmp_path / "weights"))
    (tmp_path / "weights").mkdir()
    files.handler = handler
    yield files, asked, tmp_path / "weights"
    server.shutdown()
    server.server_close()


def _sha256(data):
    return hashlib.sha256(data).hexdigest()


def _git(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def test_a_timm_expert_is_fetched_checked_and_then_used(hub, capsys, tmp_path):
    import timm

    files, asked, folder = hub
    trunk = timm.create_model("test_vit")
    save_file(trunk.state_dict(), tmp_path / "w")
    data = (tmp_path / "w").read_bytes()
    files["timm/test_vit.r160_in1k", "model.safetensors"] = (data, _sha256(data))
    name = "timm:test_vit.r160_in1k+tiny-vit"
    assert main(["experts", "fetch", name]) == 0
    assert f"checksum {_sha256(data)} as the hub states it" in capsys.readouterr().out
    assert (folder / "test_vit.r160_in1k.safetensors").read_bytes() == data
    assert [p.name for p in folder.iterdir()] == ["test_vit.r160_in1k.safetensors"]
    expert = create_expert(name)
    assert torch.equal(expert.vision_state()["cls_token"], trunk.state_dict()["cls_token"])
    assert expert_info(name).here == folder / "test_vit.r160_in1k.safetensors"
    assert fetch_expert(name) == {folder / "test_vit.r160_in1k.safetensors": ""} and asked == ["model.safetensors"]


def test_of_a_language_model_only_the_vision_shards_are_fetched(hub, tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    files, asked, _ = hub
    from test_hf_vision import LANGUAGE, VISION

    config = transformers.LlavaConfig(
        text_config=transformers.LlamaConfig(**LANGUAGE), vision_config=transformers.CLIPVisionConfig(**VISION))
    transformers.LlavaForConditionalGeneration(config).save_pretrained(tmp_path / "m", max_shard_size="30KB")
    (tmp_path / "m" / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}')
    for path in (tmp_path / "m").iterdir():
        data = path.read_bytes()
        files["org/llava", path.name] = (data, _sha256(data) if path.suffix == ".safetensors" else _git(data))
    files_here = fetch_expert("hf:org/llava+tiny-vit")
    shards = {file for _, file in files if file.endswith(".safetensors")}
    fetched = {path.name for path in files_here if path.suffix == ".safetensors"}
    assert fetched and fetched < shards and set(asked) >= fetched and not set(asked) & (shards - fetched)
    expert = create_expert("hf:org/llava+tiny-vit")
    assert expert.depth == 3
    info = expert_info("hf:org/llava+tiny-vit")
    assert (info.size, info.depth, info.width) == (32, 3, 32)
    assert info.parameters == sum(t.numel() for t in expert.vision_state().values())
    # and without a weights folder the same files come from the hub, into its own cache
    monkeypatch.delenv("MEDBRIDGE_WEIGHTS")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", partial(
        huggingface_hub.snapshot_download, endpoint=os.environ["HF_ENDPOINT"], cache_dir=tmp_path / "cache"))
    asked.clear()
    assert create_expert("hf:org/llava+tiny-vit").fingerprint() == expert.fingerprint()
    assert set(asked) & shards == fetched


def test_a_download_that_differs_from_its_checksum_gets_no_name(hub):
    files, _, folder = hub
    files["timm/test_vit.r160_in1k", "model.safetensors"] = (b"half a file", _sha256(b"a whole file"))
    with pytest.raises(ExpertError, match=r"could not be fetched: .*checksum is .*, not .*; fetch it again"):
        fetch_expert("timm:test_vit.r160_in1k+tiny-vit")
    assert not list(folder.glob("*.safetensors"))


def test_a_hub_out_of_reach_says_which_file_to_put_where(hub, monkeypatch):
    _, _, folder = hub
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ExpertError, match=r"with a browser, download .*co/timm/vit_base_patch32_clip_224\.openai") as e:
        fetch_expert("clip-vitb32")
    assert str(folder) in str(e.value) and "ViT-B-32-openai.safetensors" in str(e.value)


@pytest.mark.parametrize(("name", "message"), [
    ("lvm-med-resnet50+pubmedbert", "cannot be fetched by its name.*LVM-Med.*Put its checkpoint into"),
    ("timm:resnet26t.nobody+tiny-vit", "write the tag of its weights too"),
    ("open_clip:ViT-B-32/nobody", "no pretrained tag 'nobody'"),
    ("nothing:else", "unknown expert 'nothing:else'")])
def test_what_cannot_be_fetched_says_so(hub, name, message):
    with pytest.raises(ExpertError, match=message):
        fetch_expert(name)


def _large(tmp_path):
    """A timm checkpoint of several chunks of the client's."""
    import timm

    save_file(timm.create_model("test_vit").state_dict() | {"head.more": torch.zeros(8_000_000)}, tmp_path / "w")
    return (tmp_path / "w").read_bytes()


def test_an_interrupted_download_goes_on_where_it_stopped(hub, tmp_path, monkeypatch):
    files, _, folder = hub
    data = _large(tmp_path)
    files["timm/test_vit.r160_in1k", "model.safetensors"] = (data, _sha256(data))
    handler = files.handler
    handler.breaks.extend([1] * 20)
    monkeypatch.setattr("time.sleep", lambda _: None)  # the client waits before it tries again
    with pytest.raises(ExpertError, match=r"could not be fetched: .*cut off .*with a browser from https://huggingface\.co/timm"):
        fetch_expert("timm:test_vit.r160_in1k+tiny-vit")
    assert [p.name for p in folder.iterdir()] == [f"test_vit.r160_in1k.safetensors.{_sha256(data)[:8]}.part"]
    handler.breaks.clear()
    handler.ranges.clear()
    [got] = fetch_expert("timm:test_vit.r160_in1k+tiny-vit")
    assert got.read_bytes() == data and handler.ranges and min(handler.ranges) >= len(data) // 2
    assert [p.name for p in folder.iterdir()] == [got.name]


def test_fetching_shows_a_progress_bar(hub, tmp_path, capfd):
    files, _, folder = hub
    data = _large(tmp_path)
    files["timm/test_vit.r160_in1k", "model.safetensors"] = (data, _sha256(data))
    assert main(["experts", "fetch", "timm:test_vit.r160_in1k+tiny-vit"]) == 0
    out, err = capfd.readouterr()
    assert "test_vit.r160_in1k.safetensors: 100%" in err and "B/s" in err
    assert f"checksum {_sha256(data)} as the hub states it" in out
    assert (folder / "test_vit.r160_in1k.safetensors").read_bytes() == data


def test_checkpoints_that_are_one_file_on_the_hub_are_fetched_under_the_aliass_name(hub):
    files, _, folder = hub
    files["sarahESL/PubMedCLIP", "PubMedCLIP_ViT32.pth"] = (b"weights", _sha256(b"weights"))
    [got] = fetch_expert("pubmedclip")
    assert got == folder / "pubmedclip.pth" == expert_info("pubmedclip").here
    files["ricklisz123/MedDINOv3-ViTB-16-CT-3M", "model.pth"] = (b"others", _sha256(b"others"))
    text = SENTENCE_ENCODERS["pubmedbert"]
    files[text, "config.json"] = (b"{}", _git(b"{}"))
    files[text, "model.safetensors"] = (b"text", _sha256(b"text"))
    fetched = {path.relative_to(folder).as_posix() for path in fetch_expert("meddinov3+pubmedbert")}
    where = text.replace("/", "--")
    assert fetched == {"meddinov3+pubmedbert.pth", f"{where}/config.json", f"{where}/model.safetensors"}
