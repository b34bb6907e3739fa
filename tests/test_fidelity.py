"""The port follows the article's own runs, number by number."""

import random

import keras
import numpy as np
import pytest
from conftest import DATA

import demo_gan


def set_up(name):
    """The recording, a GAN with its initial weights, its data and settings; random is seeded."""
    recording = np.load(DATA / "trajectories" / f"{name}.npz")
    seed, noise_dim = int(recording["seed"]), int(recording["noise_dim"])
    rows = int(recording["batch_size"] * recording["batch_count"])
    rng = np.random.RandomState(seed)
    samples = {"x": rng.uniform(-3, 3, (rows, noise_dim)), "y": rng.normal(size=(rows, 1))}
    gan = demo_gan.make_gan(noise_dim)
    for model, recorded in models_and_weights(gan, recording, "initial"):
        model.set_weights(recorded)
    random.seed(seed)
    settings = {key: int(recording[key]) for key in ("batch_size", "step_per")}
    return recording, gan, samples, settings


def models_and_weights(gan, recording, moment):
    networks = ("generator", gan.generator_model, 4), ("discriminator", gan.discriminateor_model, 2)
    for network, model, depth in networks:
        names = [f"{layer}/{part}" for layer in range(depth) for part in ("kernel", "bias")]
        yield model, [recording[f"{moment}/{network}/{name}"] for name in names]


def assert_follows(gan, recording):
    for key in ("gen_result", "dis_result"):
        distance = np.abs(np.array(gan.train_status[key]) - recording[key]).max(axis=(1, 2))
        assert distance[0] < 5e-4
        assert distance[4] < 5e-3


@pytest.mark.parametrize("updates_for_xla", [0, np.inf], ids=["with XLA", "without XLA"])
@pytest.mark.parametrize("name", ["k20_noise4", "k3_noise4", "k20_noise1"])
def test_follows_the_recorded_trajectory(name, updates_for_xla, no_display, monkeypatch):
    monkeypatch.setattr(demo_gan, "UPDATES_FOR_XLA", updates_for_xla)
    recording, gan, samples, settings = set_up(name)
    gan.train(samples, epoch=5, plot=True, **settings)
    assert_follows(gan, recording)


def test_follows_the_recorded_weights_and_goes_on_when_called_again(no_display):
    recording, gan, samples, settings = set_up("k20_noise4")
    gan.train(samples, epoch=1, plot=True, **settings)
    for model, recorded in models_and_weights(gan, recording, "after_epoch_1"):
        for weight, expected in zip(model.get_weights(), recorded, strict=True):
            np.testing.assert_allclose(weight, expected, atol=5e-4)
    gan.train(samples, epoch=4, plot=True, **settings)
    assert_follows(gan, recording)


@pytest.mark.parametrize("y_true", [None, 0.0, [[7.0]]])
def test_losses_are_the_papers_clipped_at_epsilon_and_ignore_y_true(y_true):
    p, edge = np.array([[0.0], [0.25], [0.9]], "float32"), keras.config.epsilon()
    expected = np.log(np.maximum(p, edge))
    np.testing.assert_allclose(demo_gan.log_loss_discriminator(y_true, p), -expected, rtol=1e-6)
    np.testing.assert_allclose(demo_gan.log_loss_generator(y_true, 1 - p), expected, rtol=1e-6)
