"""The flags of tests/experiments.py, which measure a setting of the reader's own."""

import experiments
import pytest


@pytest.mark.parametrize(
    ("flags", "setting"),
    [
        ([], None),
        (["-k", "5", "-n", "2"], experiments.Setting(5, 2)),
        (["--step_per", "5"], experiments.Setting(5, 4)),
        (["--noise_dim", "2"], experiments.Setting(20, 2)),
    ],
)
def test_flag_that_is_not_given_has_the_articles_value(flags, setting):
    assert experiments.own_setting(flags) == setting


@pytest.mark.parametrize("flag", ["-k/--step_per", "-n/--noise_dim"])
@pytest.mark.parametrize("value", ["0", "-1", "1.5", "many"])
def test_bad_value_ends_with_a_message_that_names_the_flag(flag, value, capsys):
    short, long = flag.split("/")
    with pytest.raises(SystemExit) as end:
        experiments.own_setting([short, value])
    assert end.value.code == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert long in message
    assert value in message
