"""The port follows the article's own runs, number by number."""

import random

import keras
import numpy as np
import pytest
from conftest import DATA

import demo_gan


def recorded_weights(recording, moment):
    """Return the weights of both networks, in Keras's order."""
    names = []
    for network, depth in (("generator", 4), ("discriminator", 2)):
        for layer in range(depth):
            names.append(f"{moment}/{network}/{layer}/kernel")
            names.append(f"{moment}/{network}/{layer}/bias")
    return [recording[name] for name in names]


def set_up(recording):
    """Return a GAN with the initial weights, the data and the settings of a recording."""
    seed = int(recording["seed"])
    noise_dim = int(recording["noise_dim"])
    batch_size = int(recording["batch_size"])
    rows = batch_size * int(recording["batch_count"])
    rng = np.random.RandomState(seed)
    noise = rng.uniform(-3, 3, (rows, noise_dim))
    real = rng.normal(size=(rows, 1))
    gan = demo_gan.make_gan(noise_dim)
    gan.generator_training_model.set_weights(recorded_weights(recording, "initial"))
    random.seed(seed)
    settings = {
        "batch_size": batch_size,
        "step_per": int(recording["step_per"]),
        "plot": True,
    }
    return gan, {"x": noise, "y": real}, settings


def assert_follows(gan, recording):
    for key in ("gen_result", "dis_result"):
        differences = np.abs(np.array(gan.train_status[key]) - recording[key])
        by_epoch = differences.max(axis=(1, 2))
        assert by_epoch[0] < 5e-4
        assert by_epoch[4] < 5e-3


def open_recording(name):
    return np.load(DATA / "trajectories" / f"{name}.npz")


@pytest.mark.parametrize("name", ["k3_noise4", "k20_noise1"])
def test_training_follows_a_recorded_run(name):
    recording = open_recording(name)
    gan, samples, settings = set_up(recording)
    gan.train(samples, epoch=5, **settings)
    assert_follows(gan, recording)


def test_training_with_xla_goes_on_as_recorded_when_called_again(monkeypatch):
    monkeypatch.setattr(demo_gan, "UPDATES_FOR_XLA", 0)
    recording = open_recording("k20_noise4")
    gan, samples, settings = set_up(recording)
    gan.train(samples, epoch=1, **settings)
    weights = gan.generator_training_model.get_weights()
    expected = recorded_weights(recording, "after_epoch_1")
    for ours, theirs in zip(weights, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=5e-4)
    gan.train(samples, epoch=4, **settings)
    assert_follows(gan, recording)


@pytest.mark.parametrize("y_true", [None, 0.0, [[7.0]]])
def test_losses_are_the_papers_clipped_at_epsilon(y_true):
    p = np.array([[0.0], [0.25], [0.9]], "float32")
    expected = np.log(np.maximum(p, keras.config.epsilon()))
    np.testing.assert_allclose(demo_gan.log_loss_discriminator(y_true, p), -expected, rtol=1e-6)
    np.testing.assert_allclose(demo_gan.log_loss_generator(y_true, 1 - p), expected, rtol=1e-6)
