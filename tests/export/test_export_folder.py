"""Encoder folders: what is saved is what is loaded, and what does not fit is refused in one line."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from lobes.errors import CheckpointError, ConfigError
from lobes.export import ModelCard, available_encoders, folder, load_encoder, save_encoder


def frames(encoder, batch):
    with torch.no_grad():
        return encoder(*batch).frames


def test_loaded_encoder_computes_the_same(tmp_path, encoder, hparams_text, batch):
    save_encoder(encoder, tmp_path / "enc", hparams_text)
    loaded = load_encoder(tmp_path / "enc")
    assert not loaded.training
    assert torch.equal(frames(loaded, batch), frames(encoder, batch))


def test_half_precision_is_half_the_size_and_comes_back_as_float32(tmp_path, encoder, hparams_text, batch):
    full = save_encoder(encoder, tmp_path / "full", hparams_text) / "encoder.safetensors"
    half = save_encoder(encoder, tmp_path / "half", hparams_text, half=True) / "encoder.safetensors"
    assert sum(t.nbytes for t in load_file(full).values()) == 2 * sum(t.nbytes for t in load_file(half).values())
    loaded = load_encoder(tmp_path / "half")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    error = (frames(loaded, batch) - frames(encoder, batch)).abs().max()
    assert 0 < error < 2e-2  # it is rounded, and no more than rounded


def test_only_the_encoder_is_kept_of_the_experiment(tmp_path, encoder, hparams_text):
    save_encoder(encoder, tmp_path, hparams_text)
    text = (tmp_path / "hyperparams.yaml").read_text()
    assert "output_folder" not in text and "AdamW" not in text and "<dim>" not in text
    assert not list(tmp_path.glob(".*")), "temporary files are left behind"


def test_a_run_folder_is_found_by_its_encoder_folder(tmp_path, encoder, hparams_text, batch):
    save_encoder(encoder, tmp_path / "run" / "encoder", hparams_text)
    (tmp_path / "run" / "hyperparams.yaml").write_text(hparams_text)  # SpeechBrain writes the run's own beside it
    assert torch.equal(frames(load_encoder(tmp_path / "run"), batch), frames(encoder, batch))


def test_shipped_encoders_are_found_by_name(tmp_path, monkeypatch, encoder, hparams_text, batch):
    monkeypatch.setattr(folder, "WEIGHTS_FOLDER", tmp_path)
    assert available_encoders() == []
    save_encoder(encoder, tmp_path / "tiny", hparams_text)
    assert available_encoders() == ["tiny"]
    assert torch.equal(frames(load_encoder("tiny"), batch), frames(encoder, batch))
    with pytest.raises(CheckpointError, match=r"'tinny'.*\(tiny\)"):
        load_encoder("tinny")


def test_every_shipped_encoder_loads_and_stays_small():
    for name in available_encoders():
        encoder, stored = load_encoder(name), folder.WEIGHTS_FOLDER / name
        assert encoder.frame_rate > 0
        assert (stored / "encoder.safetensors").stat().st_size <= 4 * 2**20
        if any(True for _ in encoder.parameters()):
            card = (stored / "README.md").read_text(encoding="utf-8")
            assert "Not stated." not in card, f"{name}: the model card says too little"


def test_untrained_is_the_same_architecture_with_seeded_fresh_weights(tmp_path, encoder, hparams_text):
    save_encoder(encoder, tmp_path, hparams_text)
    one, same, other = (load_encoder(tmp_path, untrained=True, seed=s).state_dict() for s in (1, 1, 2))
    trained = encoder.state_dict()
    assert {k: v.shape for k, v in one.items()} == {k: v.shape for k, v in trained.items()}
    assert all(torch.equal(one[name], same[name]) for name in one)
    weights = [name for name in one if one[name].ndim > 1]
    assert not any(torch.equal(one[name], other[name]) for name in weights)
    assert not any(torch.equal(one[name], trained[name]) for name in weights)


def test_saving_and_loading_leave_the_random_state_alone(tmp_path, encoder, hparams_text):
    before = torch.get_rng_state()
    save_encoder(encoder, tmp_path, hparams_text)
    load_encoder(tmp_path, untrained=True)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("norm.weight"), r"1 missing \(first: norm.weight\)"),
        (lambda t: t.update(extra=torch.zeros(1)), r"1 unexpected \(first: extra\)"),
        (lambda t: t.update({"norm.bias": torch.zeros(3)}), r"norm.bias \(3,\), expected \(16,\)"),
    ],
)
def test_weights_of_another_encoder_are_refused_in_one_line(tmp_path, encoder, hparams_text, change, message):
    save_encoder(encoder, tmp_path, hparams_text)
    tensors = load_file(tmp_path / "encoder.safetensors")
    change(tensors)
    save_file(tensors, tmp_path / "encoder.safetensors")
    with pytest.raises(CheckpointError, match=message) as caught:
        load_encoder(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_pickle_is_never_opened(tmp_path, encoder, hparams_text):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").touch, ())

    save_encoder(encoder, tmp_path, hparams_text)
    torch.save({"norm.weight": Trap()}, tmp_path / "encoder.safetensors")
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load_encoder(tmp_path)
    assert not (tmp_path / "sprung").exists()


def test_missing_files_are_named(tmp_path, encoder, hparams_text):
    with pytest.raises(CheckpointError, match="no folder with hyperparams.yaml"):
        load_encoder(tmp_path / "nowhere")
    save_encoder(encoder, tmp_path, hparams_text)
    (tmp_path / "encoder.safetensors").unlink()
    with pytest.raises(CheckpointError, match="encoder.safetensors: no such file"):
        load_encoder(tmp_path)
    load_encoder(tmp_path, untrained=True)


def test_saving_refuses_what_could_not_be_loaded(tmp_path, encoder, hparams_text):
    with pytest.raises(ConfigError, match="another than the one given.*of another shape"):
        save_encoder(encoder, tmp_path, hparams_text.replace("dim: 16", "dim: 24"))
    with pytest.raises(ConfigError, match="no key 'encoder'"):
        save_encoder(encoder, tmp_path, "dim: 16")
    with pytest.raises(ConfigError, match="torch.optim"):
        save_encoder(encoder, tmp_path, "encoder: !new:torch.optim.SGD {params: []}")
    encoder.norm.weight.data[0] = 1e6
    with pytest.raises(CheckpointError, match="norm.weight.*range of float16"):
        save_encoder(encoder, tmp_path, hparams_text, half=True)
    assert not (tmp_path / "encoder.safetensors").exists()


def test_model_card_states_what_it_was_given_and_what_the_encoder_is(tmp_path, encoder, hparams_text):
    card = ModelCard("tiny", data="GCompris, 3 h of French", licence="CC-BY-SA 4.0")
    save_encoder(encoder, tmp_path, hparams_text, half=True, card=card)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    parameters = sum(p.numel() for p in encoder.parameters())
    for expected in ("# tiny", "GCompris, 3 h of French", "CC-BY-SA 4.0", f"{parameters:,}", "float16", "at 25 Hz"):
        assert expected in text
