"""GANModel: wiring, compiling, training, and what it refuses."""

import copy
import itertools
import os
import pickle
import random
import re
import resource
import unittest.mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT, finish, same, small_gan, small_samples, start, weights
from keras import layers

import demo_gan

TRAIN = {"epoch": 2, "batch_size": 8, "step_per": 3}


def still():
    """An optimizer that moves nothing."""
    return keras.optimizers.SGD(0.0)


def gan_with(in_generator=(), in_discriminator=(), generator="sgd", discriminator="sgd"):
    gan = demo_gan.GANModel([1, 2])
    for layer in [layers.Dense(4), *in_generator, layers.Dense(1)]:
        gan.add_gen_layer(layer)
    for layer in [layers.Dense(4), *in_discriminator, layers.Dense(1, activation="sigmoid")]:
        gan.add_discr_layer(layer)
    gan.compile_generator_model(generator)
    gan.compile_discriminateor_model(discriminator)
    return gan


@pytest.fixture(params=[0, np.inf], ids=["with XLA", "without XLA"])
def both_ways(request, monkeypatch):
    """Runs a test with XLA from the first update on, and without it."""
    monkeypatch.setattr(demo_gan, "UPDATES_FOR_XLA", request.param)


def stop_after(epochs):
    """A callback that stops training."""
    stop = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: setattr(stop.model, "stop_training", epoch + 1 == epochs)
    )
    return stop


def moved(before, *networks):
    return [not np.array_equal(a, b) for a, b in zip(before, weights(*networks), strict=True)]


@pytest.fixture(scope="module")
def shared():
    """A GAN for the tests that do not mind how far it is trained."""
    return small_gan()


# -- the two phases -----------------------------------------------------------------------


def test_losses_and_draws_are_the_documented_ones(no_display, both_ways):
    """Recomputed with the same seed; no weight moves, so that the losses tell the batches."""
    gan, samples = small_gan(optimizer=still()), small_samples()
    random.seed(5)
    gan.train(samples, epoch=3, batch_size=8, step_per=2, plot=True)
    after = random.getstate()
    random.seed(5)

    def batch(key):
        return samples[key].reshape(5, 8, -1)[random.randint(0, 4)]

    def judge(x):
        return np.array(gan.discriminateor_model(gan.generator_model(x)))

    expected = {"dis_loss": [], "gen_loss": [], "dis_result": []}
    for _ in range(3):
        losses = []
        for _ in range(2):
            generated, real = judge(batch("x")), np.array(gan.discriminateor_model(batch("y")))
            losses.append(-np.log(real).mean() - np.log(1 - generated).mean())
        expected["dis_loss"].append(np.mean(losses))
        expected["dis_result"].append(judge(batch("x")))
        expected["gen_loss"].append(np.log(1 - expected["dis_result"][-1]).mean())
    for key, values in expected.items():
        np.testing.assert_allclose(gan.train_status[key], values, rtol=1e-5)
    assert random.getstate() == after
    assert [type(loss) for loss in gan.train_status["dis_loss"]] == [float] * 3


@pytest.mark.parametrize("floatx", ["float32", "float64"])
def test_results_are_kept_with_plot_only_and_samples_may_have_several_numbers(floatx, no_display):
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(floatx)
    gan, samples = small_gan(noise_dim=3, signal_dim=2), small_samples(noise_dim=3, signal_dim=2)
    gan.train(samples, **TRAIN)
    assert list(gan.train_status) == ["dis_loss", "gen_loss"]
    gan.train(samples, plot=True, **TRAIN)
    assert [len(values) for values in gan.train_status.values()] == [4, 4, 2, 2]
    assert np.shape(gan.train_status["gen_result"]) == (2, 8, 2)
    assert gan.train_status["gen_result"][0].dtype == floatx


@pytest.mark.parametrize("phase", ["generator", "discriminator"])
def test_each_phase_moves_its_own_network_only_and_lowers_its_loss(phase, both_ways):
    other = {"generator": "discriminator", "discriminator": "generator"}[phase]
    gan = gan_with(**{other: still()})
    networks = {"generator": gan.generator_model, "discriminator": gan.discriminateor_model}
    before = {name: weights(network) for name, network in networks.items()}
    gan.train(small_samples(8), epoch=30, batch_size=8, step_per=2)
    losses = gan.train_status[{"generator": "gen_loss", "discriminator": "dis_loss"}[phase]]
    assert losses[-1] < losses[0]
    for batch_size, step_per in [(4, 3), (8, 1)]:
        gan.train(small_samples(), epoch=2, batch_size=batch_size, step_per=step_per)
    assert all(moved(before[phase], networks[phase]))
    assert not any(moved(before[other], networks[other]))


def test_a_batch_normalization_follows_every_batch_and_learns_only_in_its_own_phase():
    fixed, learning = layers.BatchNormalization(momentum=0.5), layers.BatchNormalization()
    gan, samples = gan_with([fixed], [learning], generator=still()), small_samples(8)
    initial = weights(fixed)[:2]
    gan.train(samples, epoch=1, batch_size=8, step_per=7)
    assert same(initial, [fixed.gamma, fixed.beta])
    assert not same(initial, [learning.gamma, learning.beta])
    mean = np.mean(gan.generator_model.layers[0](samples["x"]), axis=0)
    np.testing.assert_allclose(fixed.moving_mean, (1 - 0.5**8) * mean, rtol=1e-4, atol=1e-6)


def test_a_layer_the_user_froze_stays_frozen():
    fixed = layers.Dense(4, trainable=False)
    partly = keras.Sequential([layers.Dense(4, trainable=False), layers.Dense(4)])
    gan = gan_with([fixed, partly])
    before = weights(fixed, partly)
    gan.train(small_samples(), **TRAIN)
    assert moved(before, fixed, partly) == [False] * 4 + [True] * 2


def test_keras_layers_of_any_kind_train(both_ways):
    def any_layers():
        return [
            layers.Dropout(0.3),
            layers.BatchNormalization(),
            layers.Lambda(lambda t: 2 * t),
            keras.Sequential([layers.Dense(3), layers.BatchNormalization()]),
            layers.Dense(3, dtype="mixed_bfloat16"),
        ]

    gan = gan_with(any_layers(), any_layers())
    networks = gan.generator_model, gan.discriminateor_model
    before = weights(*networks)
    gan.train(small_samples(), **TRAIN)
    assert all(moved(before, *networks))


class InPython(layers.Layer):
    """Calls Python, which XLA cannot compile."""

    def __init__(self, supports_jit):
        super().__init__()
        self.supports_jit = supports_jit

    def call(self, inputs):
        zeros = tf.numpy_function(np.zeros_like, [inputs], inputs.dtype)
        return inputs + tf.stop_gradient(tf.ensure_shape(zeros, inputs.shape))


@pytest.mark.filterwarnings("ignore:.*jit_compile:UserWarning")
def test_a_layer_that_xla_cannot_compile_trains_too(monkeypatch):
    monkeypatch.setattr(demo_gan, "UPDATES_FOR_XLA", 0)
    gan = gan_with(in_discriminator=[keras.Sequential([InPython(supports_jit=False)])])
    before = weights(gan.discriminateor_model)
    gan.train(small_samples(), **TRAIN)
    assert all(moved(before, gan.discriminateor_model))


def test_xla_compiles_what_pays_and_earlier_calls_count(monkeypatch):
    """Its own error tells that it does."""
    monkeypatch.setattr(demo_gan, "UPDATES_FOR_XLA", 10)
    gan = gan_with(in_discriminator=[InPython(supports_jit=True)])
    gan.train(small_samples(), epoch=3, batch_size=8, step_per=3)
    with pytest.raises(tf.errors.InvalidArgumentError, match="XLA"):
        gan.train(small_samples(), epoch=1, batch_size=8, step_per=1)
    assert len(gan.train_status["gen_loss"]) == 3


# -- compiling, and training again --------------------------------------------------------


@pytest.mark.parametrize("first", ["generator", "discriminateor"])
def test_either_model_can_be_compiled_first_and_again(first):
    gan = demo_gan.GANModel(1)
    gan.add_gen_layer(layers.Dense(1))
    gan.add_discr_layer(layers.Dense(1, activation="sigmoid"))
    for name in sorted(["generator", "discriminateor"], reverse=first == "generator"):
        getattr(gan, f"compile_{name}_model")()
    samples = small_samples(noise_dim=1)
    gan.train(samples, **TRAIN)
    before = weights(gan.generator_model, gan.discriminateor_model)
    gan.compile_generator_model(still())
    assert not any(moved(before, gan.generator_model, gan.discriminateor_model))
    gan.train(samples, **TRAIN)
    assert moved(before, gan.generator_model, gan.discriminateor_model) == [False] * 2 + [True] * 2
    assert len(gan.train_status["gen_loss"]) == 4


DECAY = keras.optimizers.schedules.ExponentialDecay(0.1, 5, 0.5)


@pytest.mark.parametrize("optimizer", [None, "sgd", keras.optimizers.Adam(DECAY)])
def test_an_optimizer_may_be_none_a_name_or_one_instance_for_both_models_of_two_gans(optimizer):
    gans = [small_gan(optimizer=optimizer) for _ in range(2)]
    models = [(one.generator_training_model, one.discriminateor_training_model) for one in gans]
    optimizers = [model.optimizer for pair in models for model in pair]
    assert len(set(map(id, optimizers))) == 4
    assert isinstance(optimizer, str | None) or optimizers[0] is optimizer
    settings = [{**one.get_config(), "name": None} for one in optimizers]
    assert all(one == settings[0] for one in settings)
    before = weights(gans[1].generator_model)
    gans[0].train(small_samples())  # by default 3 epochs, K = 10
    assert not any(moved(before, gans[1].generator_model))
    assert [int(one.iterations.numpy()) for one in optimizers] == [3, 30, 0, 0]


def averaging(**settings):
    return keras.optimizers.Adam(1e-2, use_ema=True, ema_momentum=0.9, **settings)


@pytest.mark.parametrize("wrap", [lambda one: one, keras.optimizers.LossScaleOptimizer])
def test_averages_are_in_place_as_after_keras_own_training(both_ways, wrap):
    """With one batch and a discriminator that stays G's training model can be fitted by Keras."""
    results, samples = [], small_samples(8)
    for fit in (False, True):
        keras.utils.set_random_seed(0)
        optimizer = wrap(averaging(ema_overwrite_frequency=3))
        gan = gan_with(generator=optimizer, discriminator=still())
        for epochs in (5, 3):
            if fit:
                model, gan.discriminateor_model.trainable = gan.generator_training_model, False
                if epochs == 5:
                    model.compile(wrap(averaging(ema_overwrite_frequency=3)), model.loss)
                model.fit(samples["x"], np.zeros((8, 1)), 8, epochs, verbose=0)
            else:
                gan.train(samples, epochs, 8, 1)
        results.append(weights(gan.generator_model))
    for ours, kerass in zip(*results, strict=True):
        np.testing.assert_allclose(ours, kerass, rtol=1e-3, atol=1e-5)


def test_averages_of_both_networks_are_in_place_when_training_is_stopped_and_only_then():
    gan = gan_with(generator=averaging(), discriminator=averaging())
    models = gan.generator_training_model, gan.discriminateor_training_model
    initial, diary = weights(gan.generator_model, gan.discriminateor_model), Diary()
    never = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: setattr(never.model, "stop_training", True)
    )
    gan.train(small_samples(), 5, 8, 2, callbacks=never)
    assert same(initial, weights(gan.generator_model, gan.discriminateor_model))
    gan.train(small_samples(), 9, 8, 2, callbacks=[stop_after(3), diary])
    ended = weights(gan.generator_model, gan.discriminateor_model)
    assert not any(same([a], [b]) for a, b in zip(ended, diary.seen[-1], strict=True))
    averages = [v for model in models for v in model.optimizer.variables if "average" in v.path]
    assert same(ended, [average.numpy() for average in averages])
    assert same(ended, diary.last_seen)


class CountsTraces(layers.Layer):
    """Counts how often TensorFlow traces it."""

    count = 0

    def call(self, inputs):
        CountsTraces.count += not tf.executing_eagerly()
        return inputs


def test_the_networks_are_traced_once_whatever_is_trained(no_display, monkeypatch):
    gan = gan_with([CountsTraces()])

    def traces(**settings):
        before = CountsTraces.count
        gan.train(small_samples(), **{**TRAIN, **settings})
        return CountsTraces.count - before

    assert traces() > 0
    assert traces(epoch=61) == traces(epoch=7, plot=True) == 0
    assert traces(callbacks=Diary()) == traces(callbacks=Diary(sees_weights_every=2)) == 0
    assert traces(step_per=4) == traces(batch_size=4) == 0
    monkeypatch.setattr(demo_gan, "UPDATES_FOR_XLA", 0)
    assert traces() == traces(step_per=4) == 0


MANY = """
import sys
sys.path.insert(0, sys.argv[1])
from conftest import small_gan, small_samples
import demo_gan
samples, one = small_samples(), small_gan()
for k in range(1, 11):  # of one GAN, and of ten; of these six with XLA, as TensorFlow warns of five
    for gan, updates_for_xla in ((one, float("inf")), (small_gan(), 0 if k > 4 else float("inf"))):
        demo_gan.UPDATES_FOR_XLA = updates_for_xla
        look = demo_gan.Look(gan, samples)
        gan.train(samples, epoch=1, batch_size=8, step_per=k, callbacks=look)
"""


def test_ten_k_in_one_process_print_no_warning():
    strict = ["-W", "error::UserWarning", "-c", MANY, ROOT / "tests"]
    status, out, err = finish(start(*strict))
    assert (status, out) == (0, ""), err
    assert not re.search("retracing|WARNING:tensorflow", err)


def test_memory_does_not_grow_with_the_epochs(both_ways):
    gan = small_gan()
    gan.train(small_samples(), epoch=500, batch_size=8, step_per=1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    gan.train(small_samples(), epoch=10_000, batch_size=8, step_per=1)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB


def test_one_seed_gives_one_result_in_one_call_or_two():
    results = []
    for epochs in ([7], [3, 4]):
        keras.utils.set_random_seed(4)
        gan = gan_with([layers.Dropout(0.5)])
        for epoch in epochs:
            gan.train(small_samples(), epoch=epoch, batch_size=8, step_per=2)
        results.append(weights(gan.generator_training_model))
    assert same(*results)


# -- callbacks ----------------------------------------------------------------------------


class Diary(keras.callbacks.Callback):
    """Writes down what it is told, and the networks as they are then."""

    def __init__(self, **attributes):
        super().__init__()
        self.events, self.seen, self.logs = [], [], []
        vars(self).update(attributes)

    def on_train_begin(self, logs=None):
        self.events.append("train begins")

    def on_epoch_begin(self, epoch, logs=None):
        self.events.append(f"epoch {epoch} begins")

    def on_epoch_end(self, epoch, logs=None):
        self.events.append(f"epoch {epoch} ends")
        self.seen.append(weights(self.model))
        self.logs.append({name: logs[name] for name in ("dis_loss", "gen_loss")})

    def on_train_end(self, logs=None):
        self.events.append("train ends")
        self.last_logs, self.last_seen = logs, weights(self.model)


def test_callbacks_hear_of_every_epoch_and_see_what_it_left_or_every_nth():
    gan, always = small_gan(), Diary()
    fourth, sixth = Diary(sees_weights_every=4), Diary(sees_weights_every=6)
    initial, state = gan.generator_training_model.get_weights(), random.getstate()
    gan.train(small_samples(), 14, 8, 2, callbacks=always)
    begun = [f"epoch {epoch} {what}" for epoch in range(14) for what in ("begins", "ends")]
    assert always.events == ["train begins", *begun, "train ends"]
    losses = [gan.train_status[key] for key in ("dis_loss", "gen_loss")]
    assert always.logs == [{"dis_loss": d, "gen_loss": g} for d, g in zip(*losses, strict=True)]
    assert always.last_logs == always.logs[-1]

    gan.generator_training_model.set_weights(initial)
    random.setstate(state)
    gan.train(small_samples(), 14, 8, 2, callbacks=[fourth, sixth])
    for diary in (fourth, sixth):
        assert diary.events == always.events
        for ours, theirs in zip(diary.logs, always.logs, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-6)  # TensorFlow may add in another order
        for epoch in range(diary.sees_weights_every - 1, 14, diary.sees_weights_every):
            assert same(diary.seen[epoch], always.seen[epoch])

    gan.generator_training_model.set_weights(initial)
    random.setstate(state)
    for seen in always.seen:
        gan.train(small_samples(), 1, 8, 2)
        assert same(seen, weights(gan.generator_training_model))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("when", ["on_train_begin", "on_epoch_end"])
def test_what_a_callback_raises_ends_training(shared, when, error):
    def fail(*arguments, **logs):
        raise error("enough")

    start, diary = len(shared.train_status["gen_loss"]), Diary()
    fails = keras.callbacks.LambdaCallback(**{when: fail})
    with pytest.raises(error, match="enough"):
        shared.train(small_samples(), 5, 8, 1, callbacks=[diary, fails])
    assert len(shared.train_status["gen_loss"]) == start + (when == "on_epoch_end")
    assert diary.events[-1] == "train ends"


def test_a_callback_can_stop_training(shared):
    start = len(shared.train_status["gen_loss"])
    shared.train(small_samples(), epoch=90, batch_size=8, step_per=1, callbacks=[stop_after(5)])
    assert len(shared.train_status["gen_loss"]) == start + 5
    shared.train(small_samples(), epoch=2, batch_size=8, step_per=1)
    assert len(shared.train_status["gen_loss"]) == start + 7


def test_a_stop_is_heard_within_some_thousand_rows():
    gan, samples = small_gan(), small_samples(2**12)
    stop = stop_after(1)
    stop.sees_weights_every = np.inf
    gan.train(samples, epoch=20, batch_size=2**12, step_per=8, callbacks=[stop])
    assert len(gan.train_status["gen_loss"]) == 1


def test_a_learning_rate_scheduler_sets_the_generators_rate_in_mid_training():
    gan, diary = small_gan(), Diary()
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.0 if epoch > 1 else rate)
    gan.train(small_samples(), 4, 8, 2, callbacks=[schedule, diary])
    generator = [seen[: len(gan.generator_model.weights)] for seen in diary.seen]
    assert [same(a, b) for a, b in itertools.pairwise(generator)] == [False, True, True]
    assert not same(diary.seen[-2], diary.seen[-1])


# The optimizer in the file has G's weights alone, Keras expects the whole model's.
@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")
def test_keras_own_callbacks_work_and_leave_a_model_that_loads(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    gan, monitor = small_gan(optimizer="adam"), {"monitor": "gen_loss", "mode": "min"}
    callbacks = [
        keras.callbacks.CSVLogger("log.csv"),
        keras.callbacks.TerminateOnNaN(),
        keras.callbacks.EarlyStopping(**monitor, patience=9),
        keras.callbacks.ModelCheckpoint("whole.keras"),
        keras.callbacks.ModelCheckpoint("best.weights.h5", save_weights_only=True, **monitor),
        keras.callbacks.ProgbarLogger(),
        keras.callbacks.TensorBoard("board", histogram_freq=1),
    ]
    gan.train(small_samples(), epoch=4, batch_size=8, step_per=2, callbacks=callbacks)
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 5
    assert (tmp_path / "best.weights.h5").exists()
    assert list((tmp_path / "board").rglob("events*"))
    loaded = keras.models.load_model("whole.keras")
    assert same(weights(gan.generator_training_model), weights(loaded))


class Own(keras.optimizers.Adam):
    """An optimizer of a user's own."""


@pytest.mark.parametrize("make", [keras.optimizers.SGD, Own, averaging])
def test_a_gan_that_was_copied_or_pickled_goes_on_as_the_first_one_would(make, tmp_path):
    doubled = layers.Lambda(lambda t: 2 * t)
    gan = gan_with([doubled], [layers.BatchNormalization()], make(), make())
    gan.train(small_samples(), **TRAIN)
    gan.log_dir = tmp_path
    other = copy.deepcopy(gan) if make is Own else pickle.loads(pickle.dumps(gan))
    assert (other.log_dir, os.listdir(tmp_path)) == (tmp_path, [])  # the graphs are not drawn anew
    assert other.generator_training_model.get_layer("gan_generator") is other.generator_model
    results = []
    for one in (gan, other):
        random.seed(5)
        one.train(small_samples(), **TRAIN)
        results.append(weights(one.generator_model, one.discriminateor_model))
    for ours, others in zip(*results, strict=True):
        np.testing.assert_allclose(ours, others, atol=1e-6)  # TensorFlow may add in another order
    assert len(gan.train_status["gen_loss"]) == len(other.train_status["gen_loss"]) == 4
    assert not {*map(id, gan.generator_model.weights)} & {*map(id, other.generator_model.weights)}


def test_a_gan_that_is_not_compiled_can_be_copied_too(tmp_path):
    gan = demo_gan.GANModel(1, log_dir=tmp_path)
    gan.add_gen_layer(layers.Dense(1))
    other = copy.deepcopy(gan)
    assert (other.log_dir, other.generator_training_model) == (tmp_path, None)
    other.add_discr_layer(layers.Dense(1))
    assert len(other.discriminateor_model.layers) == 1 > len(gan.discriminateor_model.layers)


# -- what it refuses ----------------------------------------------------------------------


def test_a_training_that_diverges_ends_with_an_error_and_nothing_is_saved(tmp_path):
    rate = keras.optimizers.schedules.PiecewiseConstantDecay([20], [0.01, 1e38])
    gan, diary = small_gan(optimizer=keras.optimizers.SGD(rate)), Diary()
    look = demo_gan.Look(gan, small_samples(), every=10)
    with pytest.raises(FloatingPointError):
        gan.train(small_samples(), epoch=1000, batch_size=8, step_per=1, callbacks=[diary, look])
    assert [state.epoch for state in look.history] == [10, 20]  # and none of what is left
    assert len(gan.train_status["gen_loss"]) < 100
    assert all(np.isfinite(weight).all() for seen in diary.seen for weight in seen)
    assert diary.events[-1] == "train ends"
    with pytest.raises(ValueError, match="finite"):
        gan.save_model(tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_weights_that_are_not_finite_end_training_also_while_all_else_is():
    """Without XLA a relu may make zero of what is not a number."""
    gan = small_gan()
    kernel, *others = gan.generator_model.get_weights()
    gan.generator_model.set_weights([kernel * np.nan, *others])
    with pytest.raises(FloatingPointError):
        gan.train(small_samples(), epoch=1, batch_size=8, step_per=1)


def test_networks_are_recorded_as_they_are_used_and_not_as_they_train(no_display):
    gan = gan_with([layers.Dropout(0.9)], [layers.Dropout(0.9)], still(), still())
    samples = small_samples(8)
    gan.train(samples, epoch=1, batch_size=8, plot=True)
    generated = gan.generator_model(samples["x"])
    np.testing.assert_allclose(gan.train_status["gen_result"][0], generated, rtol=1e-5)
    used = gan.discriminateor_model(generated)
    np.testing.assert_allclose(gan.train_status["dis_result"][0], used, rtol=1e-5)


NOISE, REAL = small_samples().values()
BAD_CALLS = {
    "one dimension": ({"y": REAL[:, 0]}, {}, "y"),
    "wrong width": ({"x": REAL}, {}, "x"),
    "less noise": ({"x": NOISE[:30]}, {}, "x"),
    "more noise": ({"y": REAL[:30]}, {}, "x"),
    "nan": ({"y": np.full_like(REAL, np.nan)}, {}, "y"),
    "infinite in 32 bits": ({"x": NOISE * 1e39}, {}, "x"),
    "empty": ({"x": NOISE[:0], "y": REAL[:0]}, {}, "x"),
    "nothing": ({"y": None}, {}, "y"),
    "text": ({"y": [["a"]] * 40}, {}, "y"),
    "ragged": ({"x": [[1, 2], [3]]}, {}, "x"),
    "masked": ({"y": np.ma.masked_greater(REAL, 1)}, {}, "y"),
    "masked rows": ({"y": list(np.ma.masked_greater(REAL, 1))}, {}, "y"),
    "a few spikes in 32 bits": ({"y": 1e7 + REAL}, {}, "y"),
    "one of two is zero in 32 bits": ({"x": NOISE * [1, 1e-60]}, {}, "x"),
    "large batch": ({}, {"batch_size": 41}, "batch_size"),
    **{
        f"{name} {n!r}": ({}, {name: n}, name)
        for name in TRAIN
        for n in (0, -1, 2.0, np.float32(2.5), np.inf, "2", None, [2])
    },
}


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize(("data", "settings", "named"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_a_bad_call_says_what_is_wrong_and_changes_nothing(shared, data, settings, named):
    state, before = random.getstate(), weights(shared.generator_training_model)
    status = copy.deepcopy(shared.train_status)
    with pytest.raises(ValueError, match=rf"\b{named}\b"):
        shared.train({**small_samples(), **data}, **{**TRAIN, **settings})
    assert same(before, weights(shared.generator_training_model))
    assert random.getstate() == state
    assert shared.train_status == status


NO_DICT = (NOISE, REAL), {"y": REAL}, {"x": NOISE}, None, tf.data.Dataset.range(9)


@pytest.mark.parametrize("samples", NO_DICT)
def test_samples_that_are_no_dict_of_both_are_refused_in_one_line(shared, samples):
    for use in (shared.train, lambda samples: demo_gan.Look(shared, samples)):
        with pytest.raises(ValueError, match=r'^sample_list\["[xy]"\] must .*\(n, [12]\)') as error:
            use(samples)
        assert "\n" not in str(error.value)
    with pytest.raises(MemoryError):  # which is not their fault
        shared.train(unittest.mock.MagicMock(**{"__getitem__.side_effect": MemoryError}))


@pytest.mark.parametrize("rows", [np.ma.array(REAL), 5 + 0 * REAL, 1e6 + REAL, REAL * 1e-6])
def test_samples_that_training_can_see_are_not_refused(shared, rows):
    shared.train({"x": NOISE, "y": rows}, epoch=1, batch_size=40, step_per=1)


def dense():
    return layers.Dense(1, activation="sigmoid", name="twice")


TWICE = {
    "in one network": lambda one: ([one, one], [dense()]),
    "in both": lambda one: ([one], [one]),
    "nested twice": lambda one: ([dense()], [keras.Sequential([one, one])]),
    "deeply nested": lambda one: ([keras.Sequential([keras.Sequential([one])])], [one]),
    "wrapped": lambda one: (
        [layers.Reshape((1, 1)), layers.TimeDistributed(one), layers.Flatten()],
        [one],
    ),
    "without weights": lambda _: (2 * [layers.ReLU(name="twice")], [dense()]),
}


@pytest.mark.parametrize("place", TWICE)
def test_a_layer_that_is_used_twice_is_refused_by_name_when_it_is_compiled(place):
    gan = demo_gan.GANModel(1)
    for add, network in zip((gan.add_gen_layer, gan.add_discr_layer), TWICE[place](dense())):
        for layer in network:
            add(layer)
    for compile_model in (gan.compile_generator_model, gan.compile_discriminateor_model):
        with pytest.raises(ValueError, match="twice"):
            compile_model()


@pytest.mark.parametrize("convert", [np.ndarray.tolist, np.float16, np.asfortranarray])
def test_lists_arrays_of_any_kind_and_whole_numbers_of_numpy_train(shared, convert):
    before, start = weights(shared.generator_model), len(shared.train_status["gen_loss"])
    rows = {key: convert(rows) for key, rows in small_samples().items()}
    shared.train(rows, epoch=np.int64(2), batch_size=np.int32(8), step_per=np.uint8(3))
    assert any(moved(before, shared.generator_model))
    assert len(shared.train_status["gen_loss"]) == start + 2


def test_rows_that_do_not_fill_a_batch_are_left_out(shared):
    initial, state, results = shared.generator_training_model.get_weights(), random.getstate(), []
    for data in (NOISE, REAL), (np.r_[NOISE, 1e6 * NOISE[:7]], np.r_[REAL, 1e6 * REAL[:7]]):
        shared.generator_training_model.set_weights(initial)
        random.setstate(state)
        shared.train(dict(zip("xy", data)), **TRAIN)
        results.append(weights(shared.generator_training_model))
    assert same(*results)


def test_a_gan_that_is_not_complete_says_what_is_missing(tmp_path):
    gan = demo_gan.GANModel((2, 3))
    samples = small_samples(noise_dim=3, signal_dim=2)
    for add, name in (gan.add_gen_layer, "generator"), (gan.add_discr_layer, "discriminateor"):
        for compile_it in (gan.compile_generator_model, gan.compile_discriminateor_model):
            with pytest.raises(ValueError, match=f"{name}.*layers"):
                compile_it()
        for keep_it in (gan.load_model, gan.save_model):
            with pytest.raises(ValueError, match=f"{name}.*layers"):
                keep_it(tmp_path)
        add(layers.Reshape((-1, 1)))
        with pytest.raises(ValueError, match=f"{name}.*, [23], 1"):
            gan.compile_generator_model()
        add(layers.Flatten())
        add(layers.Dense(2 if name == "generator" else 1, activation="sigmoid"))
    with pytest.raises(ValueError, match="compile"):
        gan.train(samples, **TRAIN)
    gan.compile_generator_model()
    with pytest.raises(ValueError, match="compile"):
        gan.train(samples, **TRAIN)
    compile_both = gan.compile_generator_model, gan.compile_discriminateor_model
    for add, width in ((gan.add_discr_layer, 1), (gan.add_gen_layer, 2)):
        for compile_one in compile_both:
            compile_both[0](), compile_both[1]()
            add(layers.Dense(width))
            compile_one()
            with pytest.raises(ValueError, match="compile"):
                gan.train(samples, **TRAIN)
