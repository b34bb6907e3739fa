"""GANModel: wiring, compiling, training, and what it refuses."""

import copy
import functools
import itertools
import logging
import math
import os
import pickle
import random
import resource
import tracemalloc

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import (
    SAMPLES,
    SETTINGS,
    all_weights,
    assert_close,
    averaging,
    both_optimizers,
    compile_both,
    moved,
    same,
    scaled,
    small_gan,
    small_samples,
    steps_taken,
    train,
    train_on,
    uncompiled,
    weights,
)
from images import End
from keras import layers, ops, optimizers

import demo_gan

NOISE = SAMPLES["x"]
REAL = SAMPLES["y"]


def motionless():
    """An optimizer that moves nothing."""
    return optimizers.SGD(0.0)


def gan_with(in_generator=(), in_discriminator=(), optimizer="sgd", *loss):
    in_generator = [layers.Dense(4), *in_generator]
    in_discriminator = [layers.Dense(4), *in_discriminator]
    return compile_both(uncompiled(in_generator, in_discriminator), optimizer, *loss)


@pytest.fixture(scope="module")
def traced():
    """One GAN, which TensorFlow traces once, and its initial weights."""
    keras.utils.set_random_seed(0)
    gan = small_gan()
    return gan, gan.generator_training_model.get_weights()


@pytest.fixture
def gan(traced):
    """A GAN as if it were new."""
    gan, initial = traced
    gan.generator_training_model.set_weights(initial)
    gan.train_status.clear()
    for optimizer in both_optimizers(gan):
        optimizer.learning_rate = 0.01
    return gan


@pytest.fixture(params=[0, math.inf], ids=["with XLA", "without XLA"])
def xla_or_not(request, monkeypatch):
    """Runs a test with XLA from the first update on, and without it."""
    monkeypatch.setattr(demo_gan, "UPDATES_FOR_XLA", request.param)


# -- the two phases -----------------------------------------------------------------------


LOSSES = {
    "the article's, with XLA": ([], 0, lambda p: -np.log(p), lambda p: np.log(1 - p)),
    "chosen by name": (["mse"], math.inf, lambda p: (1 - p) ** 2, lambda p: (1 - p) ** 2),
}


@pytest.mark.parametrize(("loss", "updates", "of_d", "of_g"), LOSSES.values(), ids=LOSSES)
def test_losses_and_batches_are_the_documented_ones(loss, updates, of_d, of_g, monkeypatch):
    """Recomputed with the same seed; no weight moves, so that the losses tell the batches."""
    monkeypatch.setattr(demo_gan, "UPDATES_FOR_XLA", updates)
    gan = compile_both(small_gan(), motionless(), *loss)
    random.seed(5)
    train(gan)
    after = random.getstate()
    random.seed(5)

    def batch(rows):
        return rows.reshape(5, 8, -1)[random.randint(0, 4)]

    def judge_generated():
        return np.array(gan.discriminateor_model(gan.generator_model(batch(NOISE))))

    for dis_loss, gen_loss in zip(*gan.train_status.values(), strict=True):
        losses = []
        for _ in range(3):
            generated = judge_generated()
            real = np.array(gan.discriminateor_model(batch(REAL)))
            losses.append(of_d(real).mean() + of_d(1 - generated).mean())
        assert dis_loss == pytest.approx(np.mean(losses), rel=1e-5)
        assert gen_loss == pytest.approx(of_g(judge_generated()).mean(), rel=1e-5)
    assert random.getstate() == after


def test_results_are_kept_with_plot_only_and_are_of_networks_as_they_are_used():
    gan = gan_with([layers.Dropout(0.9)], [layers.Dropout(0.9)], motionless())
    train(gan)
    assert list(gan.train_status) == ["dis_loss", "gen_loss"]
    train(gan, epoch=1, batch_size=40, plot=True)
    assert [type(loss) for loss in gan.train_status["dis_loss"]] == [float] * 3
    generated = gan.generator_model(NOISE)
    assert_close(gan.train_status["gen_result"], [generated])
    assert_close(gan.train_status["dis_result"], [gan.discriminateor_model(generated)])


def test_samples_of_several_numbers_train_in_double_precision():
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    gan = small_gan(noise_dim=3, signal_dim=2)
    epochs = 100  # so many that not every epoch is looked at
    train(gan, small_samples(noise_dim=3, signal_dim=2), epoch=epochs, plot=True)
    results = gan.train_status["gen_result"]
    assert [result.shape for result in results] == epochs * [(8, 2)]
    assert results[1].dtype == "float64"


@pytest.mark.parametrize("phase", [0, 1], ids=["generator", "discriminator"])
def test_each_phase_moves_only_its_own_network(gan, phase, xla_or_not):
    networks = [gan.generator_model, gan.discriminateor_model]
    both_optimizers(gan)[1 - phase].learning_rate = 0.0
    before = [weights(network) for network in networks]
    train(gan)
    assert all(moved(before[phase], weights(networks[phase])))
    assert same(before[1 - phase], weights(networks[1 - phase]))


def test_batch_normalization_follows_every_batch_and_learns_in_its_own_phase():
    fixed = layers.BatchNormalization(momentum=0.5)
    learning = layers.BatchNormalization()
    gan = gan_with([fixed], [learning])
    gan.compile_generator_model(motionless())
    initial = weights(fixed)[:2]
    train(gan, epoch=1, batch_size=40, step_per=7)
    assert same(initial, [fixed.gamma, fixed.beta])
    assert all(moved(initial, [learning.gamma, learning.beta]))
    mean = np.mean(gan.generator_model.layers[0](NOISE), axis=0)
    assert_close([fixed.moving_mean], [(1 - 0.5**8) * mean])


def test_keras_layers_of_any_kind_train(xla_or_not):
    doubled = layers.Lambda(lambda t: 2 * t)
    precise = layers.Dense(3, dtype="float64", kernel_regularizer="l2")
    nested = keras.Sequential([layers.Dense(3), layers.BatchNormalization()])
    mixed = layers.Dense(3, dtype="mixed_bfloat16", activity_regularizer="l2")
    gan = gan_with([layers.Dropout(0.3), doubled, precise], [nested, mixed])
    before = all_weights(gan)
    train(gan)
    assert all(moved(before, all_weights(gan)))


class InPython(layers.Layer):
    """Calls Python, which XLA cannot compile."""

    def __init__(self, supports_jit):
        super().__init__()
        self.supports_jit = supports_jit

    def call(self, inputs):
        zeros = tf.numpy_function(np.zeros_like, [inputs], inputs.dtype)
        return inputs + tf.stop_gradient(tf.ensure_shape(zeros, inputs.shape))


@pytest.mark.filterwarnings("ignore:.*jit_compile:UserWarning")
def test_a_layer_that_xla_cannot_compile_trains_too(xla_or_not):
    gan = gan_with(in_discriminator=[keras.Sequential([InPython(supports_jit=False)])])
    before = all_weights(gan)
    train(gan)
    assert all(moved(before, all_weights(gan)))


def test_xla_compiles_what_pays_and_earlier_calls_count(monkeypatch, caplog):
    """A layer that XLA cannot compile, and says it can, tells when XLA is used."""
    caplog.set_level(logging.DEBUG, "demo_gan")
    monkeypatch.setattr(demo_gan, "UPDATES_FOR_XLA", 10)
    gan = gan_with(in_discriminator=[InPython(supports_jit=True)])
    train(gan, epoch=3)
    assert not caplog.records
    train(gan, epoch=1, step_per=1)
    (record,) = caplog.records
    assert "XLA" in record.message


def random_gamma(inputs):
    return inputs + 0 * keras.random.gamma(ops.shape(inputs), 1.0)


def test_what_xla_cannot_compile_goes_on_without_it(monkeypatch):
    monkeypatch.setattr(demo_gan, "UPDATES_FOR_XLA", 0)
    gan = gan_with([layers.Lambda(random_gamma)])
    before = all_weights(gan)
    train(gan)
    assert all(moved(before, all_weights(gan)))
    assert steps_taken(gan) == [2, 6]


# -- losses by choice ---------------------------------------------------------------------


def flat(y_true, y_pred):
    """Tells nobody where to move."""
    return 0 * y_pred


LOGITS = [
    keras.losses.BinaryCrossentropy(from_logits=True),
    functools.partial(keras.losses.binary_crossentropy, from_logits=True),
]


@pytest.mark.parametrize("loss", LOGITS)
def test_a_loss_of_logits_is_refused_when_compiling(loss):
    gan = uncompiled()
    with pytest.raises(ValueError, match="from_logits=False"):
        gan.compile_generator_model(loss=loss)
    with pytest.raises(ValueError, match="from_logits=False"):
        gan.compile_discriminateor_model(loss=loss)


@pytest.mark.parametrize("input_dim", [2.5, [1, 0], [0, 1], "12"])
def test_sizes_that_are_none_are_refused_at_once(input_dim):
    with pytest.raises(ValueError, match=r"signal_dim|noise_dim"):
        demo_gan.GANModel(input_dim)


def test_a_second_size_is_not_taken_for_a_folder():
    with pytest.raises(ValueError, match=r"log_dir.*4"):
        demo_gan.GANModel(1, 4)


def test_a_weight_penalty_counts_for_its_own_network_only():
    """With nothing else to learn a step of SGD shrinks each kernel by as much."""
    in_generator = layers.Dense(4, kernel_regularizer=keras.regularizers.L2(0.01))
    in_discriminator = layers.Dense(4, kernel_regularizer=keras.regularizers.L2(0.02))
    gan = gan_with([in_generator], [in_discriminator], optimizers.SGD(1.0), flat)
    g_kernel = in_generator.kernel.numpy()
    d_kernel = in_discriminator.kernel.numpy()
    train(gan, epoch=1, step_per=1)
    assert gan.train_status["gen_loss"] == pytest.approx([0.01 * np.sum(g_kernel**2)], rel=1e-4)
    assert gan.train_status["dis_loss"] == pytest.approx([0.02 * np.sum(d_kernel**2)], rel=1e-4)
    kernels = [in_generator.kernel, in_discriminator.kernel]
    assert_close(kernels, [0.98 * g_kernel, 0.96 * d_kernel])


@pytest.mark.parametrize("output", [1.1, -0.1])
def test_a_discriminator_without_a_sigmoid_needs_another_loss(output):
    gan = uncompiled()
    gan.add_discr_layer(layers.Rescaling(0.0, offset=output))
    compile_both(gan, motionless())
    with pytest.raises(ValueError, match=r"0 (to|and) 1"):
        train(gan)
    gan.compile_discriminateor_model(motionless(), "mse")
    with pytest.raises(ValueError, match=r"0 (to|and) 1"):
        train(gan)
    compile_both(gan, motionless(), "mse")
    train(gan)


def test_a_layer_that_does_not_fit_leaves_the_gan_as_it_was():
    gan = small_gan()
    before = all_weights(gan)
    with pytest.raises(ValueError, match="incompatible"):
        gan.add_discr_layer(layers.Conv2D(3, 3))
    with pytest.raises(ValueError, match="Layer"):
        gan.add_discr_layer("dense")
    assert same(before, all_weights(gan))
    train(gan)


def test_a_discriminator_that_is_no_probability_of_real_samples_alone_is_told():
    gan = demo_gan.GANModel([1, 1])
    gan.add_gen_layer(layers.Rescaling(0.0, offset=0.5))
    gan.add_discr_layer(layers.Dense(1, kernel_initializer="ones"))  # D says what it is given
    compile_both(gan, motionless())
    with pytest.raises(ValueError, match=r"0 (to|and) 1"):
        train(gan, {"x": np.ones((8, 1)), "y": np.full((8, 1), 5.0)})


# -- compiling, and training again --------------------------------------------------------


def test_compiling_again_with_an_optimizer_that_has_learned_makes_a_fresh_one_and_moves_no_weight():
    gan = small_gan()
    train(gan)
    before = all_weights(gan)
    gan.compile_generator_model(both_optimizers(gan)[0])
    assert same(before, all_weights(gan))
    assert steps_taken(gan) == [0, 6]
    gan.train(SAMPLES)  # the default is three epochs of ten updates
    assert steps_taken(gan) == [3, 36]


def test_one_optimizer_can_be_handed_to_both_models_of_two_gans():
    optimizer = optimizers.Adam(beta_1=0.5)
    gan = small_gan(optimizer=optimizer)
    other = small_gan(optimizer=optimizer)
    first, *copies = both_optimizers(gan) + both_optimizers(other)
    assert first is optimizer
    assert [copied.beta_1 for copied in copies] == [0.5] * 3
    before = all_weights(other)
    train(gan)
    assert same(before, all_weights(other))
    assert steps_taken(gan) + steps_taken(other) == [2, 6, 0, 0]


def test_averages_are_in_place_as_after_keras_fit():
    """With one batch and a discriminator that stays Keras can fit G's training model.

    The Diary sees each epoch, so each runs in its own call. Only the last call ends a training.
    """
    gan = gan_with(optimizer=motionless())
    gan.compile_generator_model(scaled())
    initial = weights(gan.generator_model)
    for epochs in (5, 3):
        train(gan, epoch=epochs, batch_size=40, step_per=1, callbacks=Diary())
    ours = weights(gan.generator_model)

    gan.generator_model.set_weights(initial)
    gan.discriminateor_model.trainable = False
    model = gan.generator_training_model
    model.compile(scaled(), demo_gan.log_loss_generator)
    for epochs in (5, 3):
        model.fit(NOISE, REAL, batch_size=40, epochs=epochs, verbose=0)
    assert_close(ours, weights(gan.generator_model))


class Diary(keras.callbacks.Callback):
    """Writes down what it is told, and the networks as they are then."""

    def __init__(self, **attributes):
        super().__init__()
        self.events = []
        self.seen = []
        self.logs = []
        vars(self).update(attributes)

    def on_train_begin(self, logs=None):
        self.events.append("train begins")

    def on_epoch_begin(self, epoch, logs=None):
        self.events.append(f"epoch {epoch} begins")

    def on_train_batch_begin(self, batch, logs=None):
        self.events.append(f"batch {batch} begins")

    def on_train_batch_end(self, batch, logs=None):
        self.events.append(f"batch {batch} ends")
        self.batch_logs = logs

    def on_epoch_end(self, epoch, logs=None):
        self.events.append(f"epoch {epoch} ends")
        self.seen.append(weights(self.model))
        self.logs.append(logs.copy())

    def on_train_end(self, logs=None):
        self.events.append("train ends")
        self.last_logs = logs
        self.last_seen = weights(self.model)


def test_averages_are_in_place_when_training_is_stopped():
    gan = gan_with(optimizer=averaging())
    initial = all_weights(gan)
    train(gan, callbacks=End(at=0))
    assert same(initial, all_weights(gan))
    diary = Diary()
    train(gan, epoch=9, callbacks=[End(at=3), diary])
    averages = []
    for optimizer in both_optimizers(gan):
        averages += [value for value in optimizer.variables if "average" in value.path]
    assert same(averages, all_weights(gan))
    assert same(averages, diary.last_seen)
    assert all(moved(averages, diary.seen[-1]))


class CountsTraces(layers.Layer):
    """Counts how often TensorFlow traces it."""

    count = 0

    def call(self, inputs):
        CountsTraces.count += not tf.executing_eagerly()
        return inputs


def test_the_networks_are_traced_once_whatever_is_trained(monkeypatch):
    gan = gan_with([CountsTraces()])

    def traces(**settings):
        before = CountsTraces.count
        train(gan, **settings)
        return CountsTraces.count - before

    assert traces() > 0
    assert traces(epoch=61) == 0
    assert traces(step_per=4) == 0
    assert traces(batch_size=4) == 0
    assert traces(callbacks=Diary(sees_weights_every=2)) == 0
    monkeypatch.setattr(demo_gan, "UPDATES_FOR_XLA", 0)
    assert traces() == 0


def test_six_gans_of_six_k_print_no_warning(caplog):
    """TensorFlow warns when it traces one function for the fifth time in a row."""
    tensorflow = logging.getLogger("tensorflow")
    tensorflow.addHandler(caplog.handler)
    for step_per in range(1, 7):
        gan = small_gan()
        look = demo_gan.Look(gan, SAMPLES)
        train(gan, epoch=1, step_per=step_per, callbacks=look)
    tensorflow.removeHandler(caplog.handler)
    assert not caplog.records


def test_memory_does_not_grow_with_the_epochs(gan, xla_or_not):
    train(gan, epoch=500, step_per=1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    train(gan, epoch=3_000, step_per=1)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 10_000  # KiB


def test_one_seed_gives_one_result_in_one_call_or_two():
    results = []
    for calls in ([7], [3, 4]):
        keras.utils.set_random_seed(4)
        gan = gan_with([layers.Dropout(0.5)])
        for epochs in calls:
            train(gan, epoch=epochs)
        results.append(all_weights(gan))
    assert same(*results)


# -- callbacks ----------------------------------------------------------------------------


def test_callbacks_hear_of_every_epoch_its_one_batch_and_its_losses(gan):
    diary = Diary()
    train(gan, epoch=5, callbacks=diary)
    events = ["train begins"]
    for epoch in range(5):
        events += [f"epoch {epoch} begins", "batch 0 begins"]
        events += ["batch 0 ends", f"epoch {epoch} ends"]
    assert diary.events == [*events, "train ends"]
    for name, losses in gan.train_status.items():
        assert [logs[name] for logs in diary.logs] == losses
    assert diary.last_logs == diary.batch_logs == diary.logs[-1]


@pytest.fixture
def epoch_by_epoch(gan):
    """What a Diary says of 14 epochs that were trained one by one; the GAN is reset."""
    initial = gan.generator_training_model.get_weights()
    diary = Diary()
    random.seed(5)
    for _ in range(14):
        train(gan, epoch=1, callbacks=diary)
    gan.generator_training_model.set_weights(initial)
    random.seed(5)
    return diary


def assert_saw(diary, epoch_by_epoch, epochs):
    """After these epochs the diary saw what they left, and it heard of the others too."""
    for ours, expected in zip(diary.logs, epoch_by_epoch.logs, strict=True):
        assert ours == pytest.approx(expected, rel=1e-6)
    for epoch in epochs:
        assert same(diary.seen[epoch - 1], epoch_by_epoch.seen[epoch - 1])


def test_callbacks_that_see_every_nth_epoch_hear_of_all(gan, epoch_by_epoch):
    fourth = Diary(sees_weights_every=4)
    sixth = Diary(sees_weights_every=6)
    train(gan, epoch=14, callbacks=[fourth, sixth])
    assert_saw(fourth, epoch_by_epoch, [4, 8, 12])
    assert_saw(sixth, epoch_by_epoch, [6, 12])


class ChangesItsMind(Diary):
    """Sees every fourth epoch, until it wants to see every one."""

    sees_weights_every = 4

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        if epoch == 1:
            self.sees_weights_every = 1


def test_callbacks_can_change_how_often_they_see_the_networks(gan, epoch_by_epoch):
    diary = ChangesItsMind()
    train(gan, epoch=14, callbacks=diary)
    assert_saw(diary, epoch_by_epoch, range(4, 15))


@pytest.mark.parametrize("every", [0, -1, 2.5, math.nan, "2", None])
def test_a_callback_with_a_wrong_sees_weights_every_is_named(gan, every):
    diary = Diary(sees_weights_every=every)
    assert_refused(gan, "Diary", callbacks=diary)
    assert diary.events == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize(("when", "epochs"), [("on_train_begin", 0), ("on_epoch_end", 1)])
def test_what_a_callback_raises_ends_training_and_who_wants_to_hears_of_it(
    gan, when, epochs, error
):
    """Those that want to hear of every end hear of it, also if another one fails then."""

    def fail(*arguments, **logs):
        raise error("enough")

    diary = Diary()
    first = Diary(hears_every_end=True)
    last = Diary(hears_every_end=True)
    fails = keras.callbacks.LambdaCallback(**{when: fail, "on_train_end": fail})
    fails.hears_every_end = error is RuntimeError
    with pytest.raises(error, match="enough"):
        train(gan, epoch=5, callbacks=[diary, first, fails, last])
    assert len(gan.train_status["gen_loss"]) == epochs
    assert "train ends" not in diary.events  # as after an error in `fit`
    assert first.events[-1] == last.events[-1] == "train ends"


def test_backup_and_restore_is_refused_and_another_way_named(gan, tmp_path):
    backup = keras.callbacks.BackupAndRestore(tmp_path)
    assert_refused(gan, "BackupAndRestore.*save_model", callbacks=backup)


CHANGES = {
    "compile": lambda gan: gan.compile_generator_model(),
    "add a layer": lambda gan: gan.add_discr_layer(layers.ReLU(1)),
    "train": lambda gan: train(gan),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_no_callback_can_change_a_gan_that_is_trained(gan, change):
    changes = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: change(gan))
    with pytest.raises(RuntimeError, match="trained"):
        train(gan, callbacks=changes)
    train(gan)


def test_a_callback_can_load_models_while_a_gan_is_trained(gan, tmp_path):
    before = steps_taken(gan)
    gan.save_model(tmp_path)
    loads = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: gan.load_model(tmp_path))
    train(gan, callbacks=loads)
    assert steps_taken(gan) == before


def test_train_returns_a_history_as_fit_does(gan):
    look = demo_gan.Look(gan, SAMPLES, every=2)
    history = train(gan, epoch=4, callbacks=look)
    assert type(history) is keras.callbacks.History
    assert history.history["gen_loss"] == gan.train_status["gen_loss"]
    assert history.history["w1"] == [state.w1 for state in look.history]
    assert history.epoch == [0, 1, 2, 3]


def test_a_stop_is_heard_within_some_thousand_rows(gan):
    train(gan, small_samples(2**12), epoch=20, batch_size=2**12, step_per=9, callbacks=End(at=1))
    assert len(gan.train_status["gen_loss"]) == 1


def test_a_learning_rate_scheduler_sets_the_generators_rate_in_mid_training(gan):
    diary = Diary()

    def rate(epoch):
        return 0.01 if epoch < 2 else 0.0

    train(gan, epoch=4, callbacks=[keras.callbacks.LearningRateScheduler(rate), diary])
    of_generator = [seen[:4] for seen in diary.seen]
    stays = [same(before, after) for before, after in itertools.pairwise(of_generator)]
    assert stays == [False, True, True]
    assert not same(diary.seen[-2], diary.seen[-1])


# The optimizer in the file has G's weights alone, Keras expects the whole model's.
@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")
def test_callbacks_of_keras_work_and_leave_a_model_that_loads(gan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    callbacks = [
        keras.callbacks.ModelCheckpoint("whole.keras"),
        keras.callbacks.TensorBoard("board", histogram_freq=1),
    ]
    train(gan, epoch=4, callbacks=callbacks)
    assert list((tmp_path / "board").rglob("events*"))
    loaded = keras.models.load_model("whole.keras")
    assert same(weights(gan.generator_training_model), weights(loaded))


def test_training_shows_its_progress_only_when_asked_to(gan, caplog, capsys):
    caplog.set_level(logging.INFO)
    train(gan, epoch=20)
    assert capsys.readouterr().out + caplog.text == ""
    train(gan, epoch=20, verbose=1)
    shown = capsys.readouterr().out + caplog.text
    for name in ("dis_loss", "gen_loss"):
        assert f"{gan.train_status[name][-1]:.4f}" in shown


# -- copies -------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("tests")
class Halving(optimizers.schedules.LearningRateSchedule):
    """A schedule of a user's own."""

    def __call__(self, step):
        return 0.1 * 0.5 ** ops.cast(step, "float32")

    def get_config(self):
        return {}


class Unknown(Halving):
    """One whose settings Keras does not know."""

    def get_config(self):
        raise NotImplementedError


def pickled(gan):
    return pickle.loads(pickle.dumps(gan))


COPIES = [
    (scaled, copy.deepcopy),
    (lambda: optimizers.Adam(Halving()), pickled),
    (lambda: optimizers.SGD(lambda: 0.1), copy.deepcopy),
]


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
@pytest.mark.parametrize(("make", "copied"), COPIES)
def test_a_copy_goes_on_as_the_first_one_would(make, copied):
    doubled = layers.Lambda(lambda t: 2 * t)
    gan = gan_with([doubled], [layers.BatchNormalization()], make(), "mse")
    train(gan)
    other = copied(gan)
    found = both_optimizers(gan) + both_optimizers(other)
    assert [type(optimizer) for optimizer in found] == [type(make())] * 4
    assert_close(train_on(gan), train_on(other))
    assert len(other.train_status["gen_loss"]) == 4


def without_decay_of_biases():
    optimizer = optimizers.AdamW(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


@pytest.mark.parametrize(("copied", "biases_decay"), [(lambda gan: gan, False), (pickled, True)])
def test_a_copy_says_that_all_weights_decay(copied, biases_decay, caplog):
    """A flat loss moves nothing: weights decay alone, but for the biases."""
    gan = gan_with()
    gan.compile_generator_model(without_decay_of_biases(), flat)
    gan.compile_discriminateor_model(without_decay_of_biases(), flat)
    for bias in gan.generator_training_model.weights[1::2]:
        bias.assign(bias + 1)
    assert not caplog.records
    gan = copied(gan)
    before = all_weights(gan)
    train(gan)
    assert moved(before, all_weights(gan)) == [True, biases_decay] * 4
    assert sum("decays all weights" in line for line in caplog.messages) == 2 * biases_decay


def test_a_copy_says_that_all_weights_decay_also_where_the_loss_is_scaled(caplog):
    gan = gan_with()
    gan.compile_generator_model(optimizers.LossScaleOptimizer(optimizers.AdamW()))
    assert "decays all weights" not in caplog.text
    pickled(gan)
    assert "decays all weights" in caplog.text


def test_an_optimizer_that_keras_cannot_copy_is_for_one_model_and_stays_as_it_is():
    gan = gan_with()
    optimizer = optimizers.SGD(Unknown())
    gan.compile_generator_model(optimizer)
    for use in (pickle.dumps, copy.deepcopy):
        with pytest.raises(ValueError, match="one for each model"):
            use(gan)
    with pytest.raises(ValueError, match="one for each model"):
        gan.compile_discriminateor_model(optimizer)
    before = all_weights(gan)
    train(gan)
    assert all(moved(before, all_weights(gan)))


def test_a_copy_is_wired_anew_and_draws_no_graphs(gan, tmp_path):
    gan.log_dir = tmp_path
    both_optimizers(gan)[0].learning_rate = 0.25
    other = copy.deepcopy(gan)
    gan.log_dir = None
    assert other.log_dir == tmp_path
    assert not os.listdir(tmp_path)
    assert float(both_optimizers(other)[0].learning_rate) == 0.25
    assert other.generator_training_model.get_layer("gan_generator") is other.generator_model
    before = all_weights(gan)
    train(other)
    assert same(before, all_weights(gan))


def test_a_copy_that_a_callback_made_can_be_trained(gan):
    copies = []
    makes_copies = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: copies.append(copy.deepcopy(gan))
    )
    train(gan, callbacks=makes_copies)
    before = all_weights(copies[0])
    train(copies[0])
    assert all(moved(before, all_weights(copies[0])))


def test_a_gan_that_is_not_compiled_can_be_copied_too():
    gan = demo_gan.GANModel(1)
    gan.add_gen_layer(layers.Dense(1))
    other = copy.deepcopy(gan)
    other.add_discr_layer(layers.Dense(1))
    assert other.discriminateor_model.layers
    assert not gan.discriminateor_model.layers


# -- what it refuses ----------------------------------------------------------------------


def test_a_training_that_diverges_ends_with_an_error(gan):
    def rate(epoch):
        return 0.01 if epoch < 20 else 1e38

    schedule = keras.callbacks.LearningRateScheduler(rate)
    diary = Diary()
    look = demo_gan.Look(gan, SAMPLES, every=10)
    with pytest.raises(FloatingPointError):
        train(gan, epoch=1000, callbacks=[schedule, diary, look])
    assert [state.epoch for state in look.history] == [10, 20]
    assert len(gan.train_status["gen_loss"]) < 100
    for seen in diary.seen:
        assert all(np.isfinite(weight).all() for weight in seen)


def test_weights_that_are_not_finite_end_training_though_all_else_is(gan):
    """Without XLA a relu may make zero of what is not a number."""
    kernel, *others = gan.generator_model.get_weights()
    gan.generator_model.set_weights([kernel * np.nan, *others])
    with pytest.raises(FloatingPointError):
        train(gan)


def assert_refused(gan, named, x=NOISE, y=REAL, **settings):
    """A ValueError says in one line what is wrong, and nothing has changed."""
    before = weights(gan.generator_training_model)
    state = random.getstate()
    with pytest.raises(ValueError, match=rf"^.*{named}.*$"):
        train(gan, {"x": x, "y": y}, **settings)
    assert same(before, weights(gan.generator_training_model))
    assert random.getstate() == state
    assert not gan.train_status


BAD_REAL = {
    "infinite in 32 bits": REAL * 1e39,
    "ragged": [[1], [2, 3]],
    "dates": REAL.astype("datetime64[D]"),
    "huge integers": [[10**400]] * 40,
    "masked rows": list(np.ma.masked_greater(REAL, 1)),
    "a few spikes in 32 bits": 1e7 + REAL,
}
BAD_NOISE = {
    "wrong width": REAL,
    "less noise": NOISE[:30],
    "one of two is zero in 32 bits": NOISE * [1, 1e-60],
    "empty": NOISE[:0],
}


@pytest.mark.parametrize("rows", BAD_REAL.values(), ids=BAD_REAL)
def test_real_samples_that_cannot_train_are_refused_by_name(gan, rows):
    assert_refused(gan, r'sample_list\["y"\]', y=rows)


@pytest.mark.parametrize("rows", BAD_NOISE.values(), ids=BAD_NOISE)
def test_noise_that_cannot_train_is_refused_by_name(gan, rows):
    assert_refused(gan, r'sample_list\["x"\]', x=rows)


LAST_THREE = np.arange(40).reshape(40, 1) > 36
PROBLEMS = [
    (np.where(LAST_THREE, math.nan, REAL), r"\b3\b.*finite"),
    (np.ma.array(REAL, mask=LAST_THREE), r"\b3\b.*masked"),
    (REAL[:, 0], r"y\[:, None\]"),
    (REAL[:, :, None], r"shape.*\(40, 1, 1\)"),
]


@pytest.mark.parametrize(("rows", "problem"), PROBLEMS)
def test_the_message_says_what_is_wrong_with_the_samples(gan, rows, problem):
    assert_refused(gan, rf'sample_list\["y"\].*{problem}', y=rows)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("value", [0, -1, 2.0, math.inf, "2", None])
def test_a_number_that_is_not_whole_is_refused_by_name(gan, name, value):
    assert_refused(gan, rf"\b{name}\b", **{name: value})


def test_a_batch_of_more_rows_than_there_are_is_refused(gan):
    assert_refused(gan, "batch_size", batch_size=41)


NO_SAMPLES = [((NOISE, REAL), "tuple"), ({"x": NOISE}, "dict"), (REAL, "ndarray"), (None, "None")]


@pytest.mark.parametrize(("samples", "kind"), NO_SAMPLES)
def test_samples_that_are_no_dict_of_both_are_refused_in_one_line(gan, samples, kind):
    expected = r'sample_list must be \{"x": noise \(n, 2\), "y": real samples \(n, 1\)\}, got'
    with pytest.raises(ValueError, match=rf"^{expected} {kind}\S*$"):
        train(gan, samples)


@pytest.mark.parametrize("rows", [np.ma.array(REAL), 5 + 0 * REAL, 1e6 + REAL, REAL * 1e-6])
def test_samples_that_training_can_see_are_not_refused(gan, rows):
    train(gan, {"x": NOISE, "y": rows})


@pytest.mark.filterwarnings("ignore:the matrix subclass")
@pytest.mark.parametrize("convert", [np.matrix, np.ndarray.tolist, np.float16])
def test_numbers_of_any_kind_train_and_are_shown(gan, convert):
    samples = {"x": convert(NOISE), "y": convert(REAL)}
    look = demo_gan.Look(gan, samples)
    gan.train(samples, np.int64(2), np.int32(8), np.uint8(3), callbacks=look)
    assert [state.epoch for state in look.history] == [1, 2]


def test_checking_samples_takes_little_memory():
    rows = np.random.default_rng(0).standard_normal((2**22, 2))  # 64 MiB
    gan = small_gan(noise_dim=2, signal_dim=2)
    samples = {"x": rows, "y": rows}
    tracemalloc.start()
    batches = demo_gan.cut_into_batches(gan, samples, 32)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(batches) == 2
    assert peak < 1.2 * sum(array.nbytes for array in samples.values())


def test_rows_that_do_not_fill_a_batch_are_left_out(gan):
    initial = gan.generator_training_model.get_weights()
    expected = train_on(gan)
    gan.generator_training_model.set_weights(initial)
    more = {"x": np.resize(NOISE, (47, 2)), "y": np.resize(REAL, (47, 1))}
    assert same(expected, train_on(gan, more))


def nested(layer):
    return keras.Sequential([keras.Sequential([layer])])


TWICE = {
    "in one network": lambda layer: ([layer, layer], []),
    "in both": lambda layer: ([layer], [layer]),
    "nested": lambda layer: ([nested(layer)], [layer]),
    "wrapped": lambda layer: ([layers.SpectralNormalization(layer)], [layer]),
}


@pytest.mark.parametrize("place", TWICE)
def test_a_layer_that_is_used_twice_is_refused_by_name(place):
    gan = uncompiled(*TWICE[place](layers.Dense(1, name="twice")), noise_dim=1)
    with pytest.raises(ValueError, match="twice"):
        gan.compile_generator_model()
    with pytest.raises(ValueError, match="twice"):
        gan.compile_discriminateor_model()


class Opaque(layers.Layer):
    """Keras cannot write it to a file, as a function is no configuration."""

    def __init__(self, function):
        super().__init__()

    def call(self, inputs):
        return inputs


def test_a_layer_that_cannot_be_saved_is_refused_before_training():
    with pytest.raises(ValueError, match=r"gan_discriminateor.*Opaque"):
        gan_with(in_discriminator=[Opaque(len)])


def test_a_network_without_layers_is_named(tmp_path):
    gan = demo_gan.GANModel(1)
    with pytest.raises(ValueError, match=r"generator.*layers"):
        gan.compile_discriminateor_model()
    gan.add_gen_layer(layers.Dense(1))
    with pytest.raises(ValueError, match=r"discriminateor.*layers"):
        gan.compile_generator_model()
    with pytest.raises(ValueError, match=r"discriminateor.*layers"):
        gan.save_model(tmp_path)


def test_a_network_of_a_wrong_shape_is_named():
    gan = demo_gan.GANModel((2, 3))
    gan.add_gen_layer(layers.Dense(2))
    gan.add_discr_layer(layers.Dense(5))
    with pytest.raises(ValueError, match=r"discriminateor.*\(None, 1\).*\(None, 5\)"):
        gan.compile_generator_model()
    gan.add_gen_layer(layers.Reshape((2, 1)))
    with pytest.raises(ValueError, match=r"generator.*\(None, 2\).*\(None, 2, 1\)"):
        gan.compile_discriminateor_model()


def test_both_models_must_be_compiled_and_again_after_a_new_layer():
    gan = small_gan()
    for add, compile_one in (
        (gan.add_gen_layer, gan.compile_generator_model),
        (gan.add_discr_layer, gan.compile_generator_model),
        (gan.add_discr_layer, gan.compile_discriminateor_model),
    ):
        add(layers.ReLU(1))
        compile_one()
        with pytest.raises(ValueError, match="compile"):
            train(gan)
        compile_both(gan)
    train(gan)
