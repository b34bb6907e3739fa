"""GANModel: wiring, compiling, training, and what it refuses."""

import random

import keras
import matplotlib
import numpy as np
import pytest
import tensorflow as tf
from conftest import same, small_gan, small_samples, weights
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from keras import layers

import demo_gan

TRAIN = {"epoch": 2, "batch_size": 8, "step_per": 3}


# -- the interface ------------------------------------------------------------------------


def test_the_models_are_made_of_the_same_layers():
    gan = small_gan()
    for model in (gan.generator_training_model, gan.discriminateor_training_model):
        for layer in gan.generator_model.layers[1:] + gan.discriminateor_model.layers[1:]:
            assert layer in model.layers


def test_the_discriminators_training_model_outputs_d_of_real_and_one_minus_d_of_generated():
    gan, samples = small_gan(), small_samples(8)
    d_real, d_generated = gan.discriminateor_training_model([samples["y"], samples["x"]])
    np.testing.assert_allclose(d_real, gan.discriminateor_model(samples["y"]))
    generated = gan.generator_model(samples["x"])
    np.testing.assert_allclose(d_generated, 1 - gan.discriminateor_model(generated), rtol=1e-6)
    np.testing.assert_allclose(
        gan.generator_training_model(samples["x"]), gan.discriminateor_model(generated)
    )


def test_losses_of_every_epoch_are_kept_and_results_only_with_plot(no_display):
    gan, samples = small_gan(), small_samples()
    gan.train(samples, **TRAIN)
    assert len(gan.train_status["dis_loss"]) == len(gan.train_status["gen_loss"]) == 2
    assert all(isinstance(loss, float) for loss in gan.train_status["dis_loss"])
    assert gan.train_status["gen_result"] == gan.train_status["dis_result"] == []
    gan.train(samples, plot=True, **TRAIN)
    assert len(gan.train_status["dis_loss"]) == 4
    assert np.shape(gan.train_status["gen_result"]) == (2, 8, 1)
    assert np.shape(gan.train_status["dis_result"]) == (2, 8, 1)
    last = gan.discriminateor_model(gan.train_status["gen_result"][-1])
    np.testing.assert_allclose(gan.train_status["dis_result"][-1], last, rtol=1e-5)


def test_dis_loss_is_the_mean_over_the_updates_of_the_epoch():
    gan, samples = small_gan(optimizer=keras.optimizers.SGD(0.0)), small_samples(8)
    gan.train(samples, epoch=1, batch_size=8, step_per=3)
    d_real, d_generated = gan.discriminateor_training_model([samples["y"], samples["x"]])
    expected = -np.log(d_real).mean() - np.log(d_generated).mean()
    np.testing.assert_allclose(gan.train_status["dis_loss"], expected, rtol=1e-5)
    expected = np.log(1 - np.array(gan.generator_training_model(samples["x"]))).mean()
    np.testing.assert_allclose(gan.train_status["gen_loss"], expected, rtol=1e-5)


def test_batches_are_drawn_from_pythons_random_in_the_documented_order():
    gan, samples = small_gan(), small_samples(40)
    random.seed(5)
    gan.train(samples, epoch=3, batch_size=8, step_per=2)
    state = random.getstate()
    random.seed(5)
    for _ in range(3 * (2 * 2 + 1)):
        random.randint(0, 4)
    assert random.getstate() == state


def test_rows_that_do_not_fill_a_batch_are_left_out():
    samples = small_samples(20)
    spoiled = {key: np.concatenate([rows, 1e6 * rows[:7]]) for key, rows in samples.items()}
    results = []
    for data in (samples, spoiled):
        keras.utils.set_random_seed(3)
        gan = small_gan()
        gan.train(data, epoch=3, batch_size=10, step_per=2)
        results.append(weights(gan.generator_training_model))
    assert same(*results)


@pytest.mark.parametrize(
    "order", [("generator", "discriminateor"), ("discriminateor", "generator")], ids=str
)
def test_either_model_can_be_compiled_first(order):
    gan = demo_gan.GANModel(1)
    gan.add_gen_layer(layers.Dense(1))
    gan.add_discr_layer(layers.Dense(1, activation="sigmoid"))
    for name in order:
        getattr(gan, f"compile_{name}_model")()
    gan.train(small_samples(noise_dim=1), **TRAIN)
    assert len(gan.train_status["gen_loss"]) == 2


def test_compiling_again_keeps_the_weights_and_takes_the_new_optimizer():
    gan, samples = small_gan(), small_samples()
    gan.train(samples, **TRAIN)
    before = weights(gan.generator_training_model)
    gan.compile_generator_model(keras.optimizers.SGD(0.0))
    assert same(before, weights(gan.generator_training_model))
    gan.train(samples, **TRAIN)
    generator = len(gan.generator_model.weights)
    after = weights(gan.generator_training_model)
    assert same(before[:generator], after[:generator])
    assert not same(before[generator:], after[generator:])


@pytest.mark.parametrize(
    "optimizer", [None, "sgd", keras.optimizers.RMSprop(1e-3)], ids=["none", "name", "instance"]
)
def test_an_optimizer_may_be_none_a_name_or_one_instance_for_both_models_of_two_gans(optimizer):
    gans = [small_gan(optimizer=optimizer) for _ in range(2)]
    models = [
        model
        for gan in gans
        for model in (gan.generator_training_model, gan.discriminateor_training_model)
    ]
    assert len({id(model.optimizer) for model in models}) == 4
    assert len({type(model.optimizer) for model in models}) == 1
    for gan in gans:
        gan.train(small_samples(), epoch=2, batch_size=8, step_per=5)
    assert [int(model.optimizer.iterations.numpy()) for model in models] == [2, 10, 2, 10]


def test_a_copied_optimizer_keeps_its_settings():
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(0.1, 5, 0.5))
    gan = small_gan(optimizer=optimizer)
    assert gan.generator_training_model.optimizer is optimizer
    copy = gan.discriminateor_training_model.optimizer
    assert copy is not optimizer
    assert copy.get_config() == optimizer.get_config()


def test_training_one_gan_leaves_another_alone():
    first, second = small_gan(), small_gan()
    before = weights(second.generator_training_model)
    first.train(small_samples(), **TRAIN)
    assert same(before, weights(second.generator_training_model))
    second.train(small_samples(), **TRAIN)
    assert not same(before, weights(second.generator_training_model))


def test_an_int_is_both_dimensions():
    gan = demo_gan.GANModel(3)
    assert (gan.signal_dim, gan.noise_dim) == (3, 3)


def test_samples_may_have_several_components():
    gan = small_gan(noise_dim=3, signal_dim=2)
    gan.train(small_samples(noise_dim=3, signal_dim=2), plot=True, **TRAIN)
    assert gan.train_status["gen_result"][-1].shape == (8, 2)


def gan_with(in_generator, in_discriminator, **optimizers):
    gan = demo_gan.GANModel([1, 2])
    for layer in [layers.Dense(4), *in_generator, layers.Dense(1)]:
        gan.add_gen_layer(layer)
    for layer in [layers.Dense(4), *in_discriminator, layers.Dense(1, activation="sigmoid")]:
        gan.add_discr_layer(layer)
    gan.compile_generator_model(optimizers.get("generator"))
    gan.compile_discriminateor_model(optimizers.get("discriminator"))
    return gan


ANY_LAYER = {
    "Dropout": lambda: layers.Dropout(0.3),
    "BatchNormalization": lambda: layers.BatchNormalization(),
    "Lambda": lambda: layers.Lambda(lambda t: 2 * t),
    "nested": lambda: keras.Sequential([layers.Dense(3), layers.BatchNormalization()]),
    "regularized": lambda: layers.Dense(3, kernel_regularizer="l2"),
    "half precision": lambda: layers.Dense(3, dtype="mixed_bfloat16"),
}


@pytest.mark.parametrize("make", ANY_LAYER.values(), ids=ANY_LAYER)
def test_any_keras_layer_trains(make):
    gan = gan_with([make()], [make()])
    before = weights(gan.generator_training_model)
    gan.train(small_samples(), **TRAIN)
    assert all(moved(before, weights(gan.generator_training_model)))


# -- each phase moves its own network only ------------------------------------------------


def moved(before, after):
    return [not np.array_equal(a, b) for a, b in zip(before, after, strict=True)]


@pytest.mark.parametrize("setting", [(8, 3), (4, 3), (8, 1)], ids=str)
def test_each_phase_moves_its_own_network_and_only_that(setting):
    """With one optimizer standing still, all movement comes from the other phase."""
    batch_size, step_per = setting
    for still in ("generator", "discriminator"):
        gan = gan_with([], [], **{still: keras.optimizers.SGD(0.0)})
        networks = {"generator": gan.generator_model, "discriminator": gan.discriminateor_model}
        before = {name: weights(network) for name, network in networks.items()}
        # Traced once, then again for the setting in question.
        gan.train(small_samples(), epoch=1, batch_size=16, step_per=2)
        gan.train(small_samples(), epoch=2, batch_size=batch_size, step_per=step_per)
        for name, network in networks.items():
            assert all(moved(before[name], weights(network))) == (name != still)
            assert any(moved(before[name], weights(network))) == (name != still)


def test_frozen_batch_normalization_keeps_its_statistics():
    """G's statistics change once an epoch, in G's own update, however many updates D has."""
    momentum, samples = 0.5, small_samples(8)
    still = {"generator": keras.optimizers.SGD(0.0), "discriminator": keras.optimizers.SGD(0.0)}
    gan = gan_with([layers.BatchNormalization(momentum=momentum)], [], **still)
    first, normalization = gan.generator_model.layers[1:3]
    gan.train(samples, epoch=1, batch_size=8, step_per=7)
    batch_mean = np.mean(first(samples["x"]), axis=0)
    np.testing.assert_allclose(
        normalization.moving_mean, (1 - momentum) * batch_mean, rtol=1e-4, atol=1e-6
    )


def test_a_layer_the_user_froze_stays_frozen():
    gan = demo_gan.GANModel([1, 2])
    fixed = layers.Dense(4, trainable=False)
    partly = keras.Sequential([layers.Dense(4, trainable=False), layers.Dense(4)])
    for layer in (fixed, partly, layers.Dense(1)):
        gan.add_gen_layer(layer)
    gan.add_discr_layer(layers.Dense(1, activation="sigmoid"))
    gan.compile_generator_model()
    gan.compile_discriminateor_model()
    before = weights(fixed, partly)
    gan.train(small_samples(), **TRAIN)
    assert moved(before, weights(fixed, partly)) == [False] * 4 + [True] * 2
    assert [fixed.trainable, *(layer.trainable for layer in partly.layers)] == [False, False, True]


@pytest.mark.parametrize("callback", [None, KeyboardInterrupt], ids=["done", "interrupted"])
def test_train_leaves_the_trainable_flags_as_they_were(callback):
    def flags(gan):
        networks = gan.generator_model.layers + gan.discriminateor_model.layers
        return [
            (layer.trainable, [weight.trainable for weight in layer.weights]) for layer in networks
        ]

    gan = gan_with([layers.BatchNormalization(trainable=False)], [layers.BatchNormalization()])
    before = flags(gan)
    if callback is None:
        gan.train(small_samples(), **TRAIN)
    else:
        gan.discriminateor_model.layers[1].call = raise_interrupt
        with pytest.raises(KeyboardInterrupt):
            gan.train(small_samples(), **TRAIN)
    assert flags(gan) == before


def raise_interrupt(*arguments, **named):
    raise KeyboardInterrupt


# -- compiled once, as many epochs at a time as nobody looks ------------------------------


class CountsCalls(layers.Layer):
    """Counts how often Python runs it: when it is traced, not when it is run."""

    calls = 0

    def call(self, inputs):
        CountsCalls.calls += 1
        return inputs


def traces(gan, **settings):
    before = CountsCalls.calls
    gan.train(small_samples(), **settings)
    return CountsCalls.calls - before


def test_no_epoch_is_compiled_twice_for_the_same_shapes(no_display):
    gan = gan_with([CountsCalls()], [])
    once = traces(gan, epoch=3, batch_size=8, step_per=3)
    assert once > 0
    assert traces(gan, epoch=3, batch_size=8, step_per=3) == 0
    assert traces(gan, epoch=61, batch_size=8, step_per=3) == 0
    assert traces(gan, epoch=7, batch_size=8, step_per=3, plot=True) == 0
    assert traces(gan, epoch=7, batch_size=8, step_per=3, callbacks=[Standard()]) == 0
    assert traces(gan, epoch=3, batch_size=8, step_per=4) == once
    assert traces(gan, epoch=3, batch_size=4, step_per=3) == once
    assert traces(gan, epoch=3, batch_size=8, step_per=3) == 0


class Standard(keras.callbacks.Callback):
    """Writes down what it is told, and the generator as it is then."""

    def __init__(self):
        super().__init__()
        self.events, self.seen = [], []

    def on_train_begin(self, logs=None):
        self.events.append("train begins")

    def on_epoch_begin(self, epoch, logs=None):
        self.events.append(f"epoch {epoch} begins")

    def on_epoch_end(self, epoch, logs=None):
        self.events.append(f"epoch {epoch} ends")
        self.seen.append((weights(self.model), dict(logs)))

    def on_train_end(self, logs=None):
        self.events.append("train ends")


def test_a_standard_callback_sees_every_epoch_as_it_ends():
    keras.utils.set_random_seed(1)
    gan, callback = small_gan(), Standard()
    gan.train(small_samples(), epoch=3, batch_size=8, step_per=2, callbacks=[callback])
    assert callback.events == [
        "train begins",
        *(f"epoch {epoch} {what}" for epoch in range(3) for what in ("begins", "ends")),
        "train ends",
    ]
    losses = {name: gan.train_status[name] for name in ("dis_loss", "gen_loss")}
    for epoch, (_, logs) in enumerate(callback.seen):
        assert logs == {name: values[epoch] for name, values in losses.items()}
    keras.utils.set_random_seed(1)
    again = small_gan()
    for seen, _ in callback.seen:
        again.train(small_samples(), epoch=1, batch_size=8, step_per=2)
        assert same(seen, weights(again.generator_training_model))


def test_a_watcher_hears_of_every_epoch_and_looks_when_it_said():
    class Looks(demo_gan.Watcher, Standard):
        every = 10

    keras.utils.set_random_seed(1)
    gan, watcher = small_gan(), Looks()
    gan.train(small_samples(), epoch=30, batch_size=8, step_per=2, callbacks=[watcher])
    assert watcher.events.count("train ends") == 1
    assert len(watcher.seen) == 30
    keras.utils.set_random_seed(1)
    gan, standard = small_gan(), Standard()
    gan.train(small_samples(), epoch=30, batch_size=8, step_per=2, callbacks=[standard])
    for epoch in (9, 19, 29):
        assert same(watcher.seen[epoch][0], standard.seen[epoch][0])
    assert [logs for _, logs in watcher.seen] == [logs for _, logs in standard.seen]


def test_stop_training_is_honoured():
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 4

    gan = small_gan()
    gan.train(small_samples(), epoch=90, batch_size=8, step_per=1, callbacks=[Stop()])
    assert len(gan.train_status["dis_loss"]) == 5
    gan.train(small_samples(), epoch=2, batch_size=8, step_per=1)
    assert len(gan.train_status["dis_loss"]) == 7


def test_keras_own_callbacks_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monitor = {"monitor": "gen_loss", "mode": "min"}
    gan = small_gan()
    callbacks = [
        keras.callbacks.CSVLogger("log.csv"),
        keras.callbacks.TerminateOnNaN(),
        keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: None),
        keras.callbacks.EarlyStopping(**monitor, patience=9, restore_best_weights=True),
        keras.callbacks.ModelCheckpoint("best.weights.h5", save_weights_only=True, **monitor),
        keras.callbacks.ProgbarLogger(),
        keras.callbacks.TensorBoard("board", histogram_freq=1),
    ]
    gan.train(small_samples(), epoch=4, batch_size=8, step_per=2, callbacks=callbacks)
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 5
    assert (tmp_path / "best.weights.h5").exists()
    assert list((tmp_path / "board").rglob("events*"))


def test_a_callback_can_change_the_learning_rate_in_mid_training():
    class Halt(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.optimizer.learning_rate = 0.0

    gan = small_gan()
    gan.train(small_samples(), epoch=1, batch_size=8, step_per=1, callbacks=Halt())
    before = weights(gan.generator_model)
    gan.train(small_samples(), epoch=3, batch_size=8, step_per=1)
    assert same(before, weights(gan.generator_model))


def test_memory_does_not_grow_with_the_epochs():
    resource = pytest.importorskip("resource")
    gan, samples = small_gan(), small_samples()
    gan.train(samples, epoch=500, batch_size=8, step_per=1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    gan.train(samples, epoch=20_000, batch_size=8, step_per=1)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB


def test_one_seed_gives_one_result():
    results = []
    for epochs in ([7], [7], [3, 4]):
        keras.utils.set_random_seed(4)
        gan = gan_with([layers.Dropout(0.5)], [])
        for epoch in epochs:
            gan.train(small_samples(), epoch=epoch, batch_size=8, step_per=2)
        results.append(weights(gan.generator_training_model))
    assert same(results[0], results[1])
    assert same(results[0], results[2])


# -- what it refuses ----------------------------------------------------------------------


def test_divergence_stops_training_and_names_the_epoch():
    class Spoil(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 2:
                weight = self.model.trainable_weights[0]
                weight.assign(np.full(weight.shape, np.nan))

    gan, callback = small_gan(), Standard()
    with pytest.raises(FloatingPointError, match=r"diverged in epoch 4: .*not finite"):
        gan.train(small_samples(), 9, 8, 1, callbacks=[Spoil(), callback])
    assert callback.events[-1] == "train ends"
    assert len(gan.train_status["gen_loss"]) == 4


def test_divergence_within_a_compiled_call_ends_it_at_once():
    rate = keras.optimizers.schedules.PiecewiseConstantDecay([20], [0.01, np.inf])
    gan = small_gan(optimizer=keras.optimizers.SGD(rate))
    with pytest.raises(FloatingPointError, match="diverged in epoch 22:"):
        gan.train(small_samples(), epoch=1000, batch_size=8, step_per=1)
    assert len(gan.train_status["gen_loss"]) == 22


def samples_with(**changes):
    return {**small_samples(), **changes}


NOISE, REAL = small_samples()["x"], small_samples()["y"]
BAD_CALLS = {
    "no dict": (
        [NOISE, REAL],
        {},
        r'sample_list must be \{"x": noise, "y": real samples\}, got list',
    ),
    "no y": ({"x": NOISE, "z": REAL}, {}, r"got \['x', 'z'\]"),
    "one dimension": (samples_with(y=REAL[:, 0]), {}, r'\["y"\] .* shape \(n, 1\), got .*\(40,\)'),
    "wrong width": (samples_with(x=REAL), {}, r'\["x"\] .* shape \(n, 2\), got .*\(40, 1\)'),
    "lengths": (samples_with(x=NOISE[:30]), {}, r"as many rows .* got 30 and 40"),
    "ragged": (samples_with(x=[[1, 2], [3]]), {}, r'\["x"\] .* different lengths'),
    "text": (samples_with(y=np.full((40, 1), "a")), {}, r'\["y"\] .* real numbers .* got <U1'),
    "complex": (samples_with(y=REAL * 1j), {}, r'\["y"\] .* real numbers .* got complex128'),
    "objects": (samples_with(y=np.full((40, 1), None)), {}, r'\["y"\] .* got object'),
    "nan": (samples_with(y=np.full((40, 1), np.nan)), {}, r'\["y"\] .* not finite'),
    "infinite": (samples_with(x=NOISE * np.inf), {}, r'\["x"\] .* not finite'),
    "too large": (samples_with(x=NOISE * 1e300), {}, r'\["x"\] .* not finite'),
    "empty": ({"x": NOISE[:0], "y": REAL[:0]}, {}, r"batch_size must be at most .* 0, got 8"),
    "large batch": (
        small_samples(),
        {"batch_size": 41},
        r"batch_size must be at most .* 40, got 41",
    ),
    "no callback": (small_samples(), {"callbacks": [7]}, r"must be Keras callbacks, got \[7\]"),
    **{
        f"{name} {value!r}": (small_samples(), {name: value}, rf"{name} must be a positive integer")
        for name in ("epoch", "batch_size", "step_per")
        for value in (0, -1, 2.0, "3", None, True)
    },
}


@pytest.fixture(scope="module")
def trained_gan():
    gan = small_gan()
    gan.train(small_samples(), **TRAIN)
    return gan


@pytest.mark.parametrize(("samples", "changes", "message"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_a_bad_call_says_what_is_wrong_and_changes_nothing(trained_gan, samples, changes, message):
    gan, state = trained_gan, random.getstate()
    before, status = weights(gan.generator_training_model), str(gan.train_status)
    with pytest.raises(ValueError, match=message):
        gan.train(samples, **{**TRAIN, **changes})
    assert same(before, weights(gan.generator_training_model))
    assert str(gan.train_status) == status
    assert random.getstate() == state


@pytest.mark.parametrize("dims", [0, -1, 1.5, "12", None, True, [1], [1, 2, 3], [1, 0], [1.0, 2]])
def test_bad_dimensions_are_refused(dims):
    with pytest.raises(ValueError, match="input_dim must be"):
        demo_gan.GANModel(dims)


def test_training_asks_for_what_is_missing():
    gan = demo_gan.GANModel([1, 2])
    with pytest.raises(ValueError, match=r"compile_generator_model\(\) before train"):
        gan.train(small_samples(), **TRAIN)
    with pytest.raises(ValueError, match="the generator has no layers"):
        gan.compile_generator_model()
    gan.add_gen_layer(layers.Dense(1))
    with pytest.raises(ValueError, match="the discriminator has no layers"):
        gan.compile_generator_model()
    gan.add_discr_layer(layers.Dense(1, activation="sigmoid"))
    gan.compile_generator_model()
    with pytest.raises(ValueError, match=r"compile_discriminateor_model\(\) before train"):
        gan.train(small_samples(), **TRAIN)
    gan.compile_discriminateor_model()
    gan.train(small_samples(), **TRAIN)


def test_layers_that_do_not_fit_are_refused():
    gan = demo_gan.GANModel([2, 3])
    with pytest.raises(ValueError, match="expected a Keras layer, got 'relu'"):
        gan.add_gen_layer("relu")
    shared = layers.Dense(3)
    gan.add_gen_layer(shared)
    with pytest.raises(ValueError, match="in the other network already"):
        gan.add_discr_layer(shared)
    gan.add_discr_layer(layers.Dense(1))
    with pytest.raises(
        ValueError, match=r"generator must end in shape \(None, 2\), got \(None, 3\)"
    ):
        gan.compile_generator_model()
    gan.add_gen_layer(layers.Dense(2))
    gan.compile_generator_model()
    for add in (gan.add_gen_layer, gan.add_discr_layer):
        with pytest.raises(ValueError, match="only before compiling"):
            add(layers.Dense(1))


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(ValueError, match="nonsense"):
        small_gan(optimizer="nonsense")


NUMBERS = st.sampled_from(["float16", "float32", "float64", "int8", "int64", "uint8", "bool"])


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_whatever_comes_in_training_runs_or_refuses_cleanly(trained_gan, data):
    shape = st.tuples(st.integers(0, 20), st.integers(1, 3)) | st_numpy.array_shapes(max_side=4)
    array = NUMBERS.flatmap(lambda dtype: st_numpy.arrays(dtype, shape))
    fits = {
        "x": st_numpy.arrays("float64", (16, 2), elements=st.floats(-1e3, 1e3)),
        "y": st_numpy.arrays("int8", (16, 1)).map(np.asfortranarray),
    }
    samples = {key: data.draw(fits[key] | array | array.map(np.ndarray.tolist)) for key in "xy"}
    epochs = len(trained_gan.train_status["gen_loss"])
    try:
        trained_gan.train(samples, epoch=1, batch_size=data.draw(st.sampled_from([4, 8])))
    except ValueError as error:
        assert "must" in str(error)  # noqa: PT017
        assert len(trained_gan.train_status["gen_loss"]) == epochs
    else:
        assert len(trained_gan.train_status["gen_loss"]) == epochs + 1


@pytest.mark.parametrize(
    "convert",
    [
        np.ndarray.tolist,
        np.float16,
        np.float64,
        np.asfortranarray,
        lambda rows: rows.repeat(2, 0)[::2],
    ],
)
def test_lists_and_arrays_of_any_kind_train(convert):
    gan = small_gan()
    gan.train({key: convert(rows) for key, rows in small_samples().items()}, **TRAIN)
    assert len(gan.train_status["gen_loss"]) == 2


# -- the caller's process stays the caller's ----------------------------------------------


def test_train_leaves_matplotlib_as_it_was(no_display):
    plt = pytest.importorskip("matplotlib.pyplot")
    mine = plt.figure()
    before = plt.isinteractive(), plt.get_fignums(), dict(matplotlib.rcParams)
    small_gan().train(small_samples(), plot=True, **TRAIN)
    assert (plt.isinteractive(), plt.get_fignums(), dict(matplotlib.rcParams)) == before
    assert plt.gcf() is mine
    plt.close(mine)


@pytest.mark.filterwarnings("ignore:The model does not have any trainable weights")
def test_a_layer_shared_inside_containers_is_refused():
    layer = layers.Dense(1, activation="sigmoid")
    gan = demo_gan.GANModel(1)
    gan.add_gen_layer(keras.Sequential([layer]))
    gan.add_discr_layer(keras.Sequential([layer]))
    with pytest.raises(ValueError, match="must not share weights"):
        gan.compile_generator_model()


def test_a_layer_that_xla_cannot_compile_trains_also_inside_another():
    class InPython(layers.Layer):
        def __init__(self):
            super().__init__()
            self.supports_jit = False

        def call(self, inputs):
            outputs = tf.numpy_function(lambda x: x, [inputs], inputs.dtype)
            return tf.ensure_shape(outputs, inputs.shape)

    nested = demo_gan.GANModel([1, 2])
    nested.add_gen_layer(keras.Sequential([InPython()]))
    nested.add_gen_layer(layers.Dense(1))
    nested.add_discr_layer(layers.Dense(1, activation="sigmoid"))
    nested.compile_generator_model("sgd")
    nested.compile_discriminateor_model("sgd")
    nested.train(small_samples(), **TRAIN)
    assert len(nested.train_status["gen_loss"]) == TRAIN["epoch"]
