"""A probe of this machine with two models, and predictions that follow from it or from specifications."""

import pytest

from tightrope import target
from tightrope.errors import UnsupportedError
from tightrope.workshop.prediction import models, probing
from tightrope.workshop.prediction.models import Convolutional, Encoder
from tightrope.workshop.prediction.predict import as_target, predict, to_json


@pytest.fixture(scope="module")
def probed():
    """A quick probe of two engines here, and one that is nowhere."""
    with pytest.MonkeyPatch.context() as patch:
        encoders = [Encoder(layers=layers, width=width, heads=2) for layers, width in ((1, 64), (3, 64), (1, 256))]
        patch.setattr(models, "ENCODERS", encoders)
        patch.setattr(models, "CONVOLUTIONALS", [Convolutional(blocks=1, channels=8, side=16)])
        patch.setattr(probing, "BLOCK_S", 0.002)
        patch.setattr(probing, "COPIED_BYTES", 1_000_000)
        return probing.probe(["native", "onnxruntime", "tensorrt"], ["int8"])


@pytest.mark.engine
def test_a_probe_says_what_it_found_of_each_engine(probed):
    native, onnxruntime, tensorrt = probed.found
    assert native.timed == 3 * len(probing.LENGTHS)  # it takes no convolutions
    assert onnxruntime.timed == native.timed + 1
    assert native.large_per_s > native.small_per_s > 0
    assert tensorrt.rates is None and tensorrt.missing
    assert probed.machine.cores >= 1 and probed.copy_bytes_per_s > 1e8 and probed.start_s > 0


@pytest.mark.engine
def test_a_probed_device_is_a_target_that_can_be_kept(probed, tmp_path, tiny_bert):
    device = as_target("here", probed)
    path = tmp_path / "here.toml"
    path.write_text(target.written(device), encoding="utf-8")
    assert target.load(str(path)) == device
    assert device.engines == ("native", "onnxruntime")
    short, long = predict(tiny_bert, device, "native", "int8", (5, 60))
    assert 0 < short.seconds < long.seconds < 1
    assert short.basis == "probe" and short.error is not None
    assert to_json(long)["predicted"] is True
    with pytest.raises(UnsupportedError, match="native in fp32 on here"):
        predict(tiny_bert, device, "native", "fp32", (5,))


def test_a_specification_predicts_too_and_says_so(tiny_bert):
    old, new = target.load("raspberry-pi-4"), target.load("raspberry-pi-5")
    slow, fast = (predict(tiny_bert, device, "native", "int8", (30,))[0] for device in (old, new))
    assert slow.basis == "specification" and slow.error is None
    assert fast.seconds < slow.seconds
    floats = predict(tiny_bert, new, "native", "fp32", (30,))[0]
    assert floats.seconds > fast.seconds
    with pytest.raises(UnsupportedError, match="coreml"):
        predict(tiny_bert, new, "coreml", "fp32", (30,))


def test_the_models_of_a_probe_are_the_same_every_time():
    first, second = (models.encoder(Encoder(layers=1, width=64, heads=2)) for _ in range(2))
    assert all((first.weights[name] == second.weights[name]).all() for name in first.weights)
    assert first.senses == second.senses
