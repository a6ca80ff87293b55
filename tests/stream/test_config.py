"""StreamConfig: what is accepted, what is refused, and that flags, YAML and help are one thing."""

import errno
import os

import pytest

from ispeed.engines.errors import UserError
from ispeed.stream.changes import Change, Schedule
from ispeed.stream.cli import main, make_parser, parse
from ispeed.stream.config import StreamConfig, make_config, read_yaml
from ispeed.stream.offline.config import read_config


def test_every_problem_is_reported_at_once():
    with pytest.raises(UserError) as caught:
        make_config({"fps": -1, "policy": "some", "colour": 3, "realtime": {"cpu": -1}})
    text = str(caught.value)
    for part in ("fps", "policy", "unknown setting 'colour'", "realtime.cpu"):
        assert part in text
    assert "\n" not in text


@pytest.mark.parametrize(
    "values",
    [
        {"fps": float("nan")},
        {"seconds": float("inf")},
        {"width": 0},
        {"slots": 1},
        {"shm_name": "../x"},
        *({"base_iso": value} for value in (0, -100, 1e7, float("nan"), "high")),
        *({"f_number": value} for value in (0, 0.4, 129, float("nan"), float("inf"))),
        *({"focal_length_mm": value} for value in (0, -50, 5001, float("nan"))),
        *({"at": [text]} for text in ("", "500", "500:Gain", "x:Gain=1", "-1:Gain=1", "5:=1", "5:Gain=[1]")),
        {"at": ["9" * 19 + ":Gain=1"]},
        {"at": "500:Gain=1"},
    ],
)
def test_values_that_cannot_be_are_refused(values):
    with pytest.raises(UserError, match=next(iter(values))):
        make_config(values)


def test_flags_go_before_the_file_and_features_are_merged(tmp_path):
    path = tmp_path / "cam.yaml"
    path.write_text("fps: 100\npixel_format: BayerRG8\nfeatures: {Gamma: 1.0}\n")
    (config,), _ = parse(["--config", str(path), "--fps", "250", "--set", "LUTEnable=true", "--json"])
    assert (config.fps, config.pixel_format, config.json_lines) == (250.0, "BayerRG8", True)
    assert config.features == {"Gamma": 1.0, "LUTEnable": True}


def test_changes_during_the_run_from_flags_and_file(tmp_path):
    path = tmp_path / "cam.yaml"
    path.write_text("at: ['500:ExposureTime=200', 600:Gain=6]\n")
    (config,), _ = parse(["--config", str(path)])
    assert config.at == ["500:ExposureTime=200", "600:Gain=6"]
    (config,), _ = parse(["--config", str(path), "--at", "7:Gain=1.5", "--at", "5:GainAuto=Off"])
    assert config.at == ["7:Gain=1.5", "5:GainAuto=Off"]
    schedule = Schedule(config.at)
    assert (schedule.next_after, schedule.due(4)) == (5, [])
    assert schedule.due(6) == [Change(5, "GainAuto", False)]  # which nodes read as Off
    assert (schedule.due(7), schedule.due(99)) == ([Change(7, "Gain", 1.5)], [])
    with pytest.raises(UserError, match=r"at\.0: the value of ExposureTime: '' is no number"):
        parse(["--at", "5:ExposureTime="])
    with pytest.raises(UserError, match=r"at\.0: write FRAMES:NAME=VALUE, such as 500:ExposureTime=200 \(got '5'\)"):
        parse(["--at", "5"])


def test_the_order_of_a_files_filters_is_for_isp_develop_too(tmp_path):
    path = tmp_path / "file.yaml"
    path.write_text("cfa: GB\nfps: 100\n")
    assert make_config(read_yaml(path)).cfa == "GB"
    assert read_config(path) == {"cfa": "GB"}
    with pytest.raises(UserError, match="cfa"):
        make_config({"cfa": "GG"})


def test_a_feature_that_is_no_yaml_is_a_text():
    (config,), _ = parse(["--set", "DeviceUserID=a: [", "--set", "Installed=2024-13-45"])
    assert config.features == {"DeviceUserID": "a: [", "Installed": "2024-13-45"}


def test_the_json_name_works_in_the_file_too(tmp_path):
    path = tmp_path / "cam.yaml"
    path.write_text("json: true\nwhite_balance: [2, 1, 1.5]\n")
    (config,), _ = parse(["--config", str(path)])
    assert config.json_lines
    assert config.white_balance == (2.0, 1.0, 1.5)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("- a\n- b\n", "name: value"), ("a: [", "no valid YAML"), ("camra: 0\n", "unknown setting 'camra'")],
)
def test_a_bad_file_is_named(tmp_path, text, sentence):
    path = tmp_path / "cam.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=sentence):
        make_config(read_yaml(path))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot read the config .*none\.yaml"):
        read_yaml(tmp_path / "none.yaml")


def test_every_field_has_a_docstring_and_a_flag_or_is_named_as_yaml_only():
    text = make_parser().format_help()
    for name, field in StreamConfig.model_fields.items():
        assert field.description, name
        assert "--" + (field.alias or name).replace("_", "-") in text or name in text, name


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--at", "5:\udceb=[1]"], "is no valid text: write it in UTF-8"),  # as a shell hands on what is no UTF-8
        (["--at", "5:A=" + "[" * 3000], None),
        (["--set", "A=" + "[" * 3000], None),
        (["--fps", "9" * 5000], "fps"),
        (["--camera", "\x1b[2J" * 1000, "--fps", "x"], "fps"),
    ],
)
def test_flags_that_the_fuzzer_found(flags, sentence):
    if sentence is None:  # taken as text, which the camera then refuses
        assert parse(flags)
        return
    with pytest.raises(UserError, match=sentence) as error:
        parse(flags)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 2100


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_what_the_system_has_no_more_of_is_one_sentence(number: int, monkeypatch, capsys) -> None:
    def scarce(configs: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("ispeed.stream.cli.run", scarce)
    assert main([]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"isp-stream: it cannot go on: {os.strerror(number).lower()}; ")
    assert said.count("\n") == 1


def test_a_fault_of_our_own_is_not_taken_for_the_systems(monkeypatch) -> None:
    def broken(configs: object) -> int:
        raise OSError(errno.EBADF, "x")

    monkeypatch.setattr("ispeed.stream.cli.run", broken)
    with pytest.raises(OSError, match="x"):
        main([])
