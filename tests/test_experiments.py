"""The flags of tests/experiments.py, which measure a setting of the reader's own."""

import experiments
import pytest

import demo_gan


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


def test_own_setting_prints_its_row_below_the_articles_and_writes_nothing(
    monkeypatch, capsys, tmp_path
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo_gan, "UPDATES_FOR_XLA", demo_gan.UPDATES_FOR_XLA)  # put back after it
    monkeypatch.setattr(experiments, "SEEDS", range(3))
    monkeypatch.setattr(experiments, "EPOCHS", experiments.EVERY)
    monkeypatch.setattr(experiments, "SAMPLES", 500)
    monkeypatch.setattr(experiments, "QUANTILES", experiments.QUANTILES[::40])
    experiments.compare(experiments.Setting(5, 2))
    out, err = capsys.readouterr()
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in out.splitlines()[2:]]
    of_the_article = [["3", "4"], ["20", "4"], ["20", "1"]]
    assert [row[:2] for row in rows] == [*of_the_article, ["5", "2"]]
    assert [row[3] for row in rows] == ["the article's stack"] * 3 + ["this port"]
    assert all(len(row) == 7 for row in rows)
    for number in (1, 2, 3):
        assert f"seed {number} of 3" in err
    assert not list(tmp_path.iterdir())
