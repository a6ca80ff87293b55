from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from genicam import gentl

from ispeed.engines.errors import UserError
from ispeed.stream.camera import CameraInfo, Discovery, discovery, list_cameras, name_alone, producer_files
from ispeed.stream.camera.simcam import producer_path


@pytest.fixture(autouse=True)
def alone(runtime_dir, monkeypatch):
    """Cameras that no other process locks, and no producers but ours."""
    monkeypatch.delenv("GENICAM_GENTL64_PATH", raising=False)


@pytest.fixture
def viky():
    genicam = pytest.importorskip("genicam")
    return Path(genicam.__file__).with_name("viky.cti")


def test_the_shipped_producer_shows_two_cameras():
    cameras = list_cameras()
    assert [(c.index, c.serial, c.vendor, c.model, c.tl_type, c.access) for c in cameras] == [
        (0, "SIM0001", "ispeed", "SimCam", "Custom", "free"),
        (1, "SIM0002", "ispeed", "SimCam", "Custom", "free"),
    ]
    assert all(camera.simulated and camera.producer == producer_path().resolve() for camera in cameras)


def test_cameras_of_other_producers_come_first_whatever_the_order(viky):
    cameras = list_cameras([producer_path(), viky])
    assert [camera.simulated for camera in cameras] == [False] * 3 + [True] * 2
    assert [camera.index for camera in cameras] == list(range(5))


def test_producers_are_named_then_on_the_path_then_shipped_each_once(viky, monkeypatch, tmp_path):
    folder = tmp_path / "producers"
    folder.mkdir()
    (folder / "b.cti").symlink_to(viky)
    (folder / "a.cti").symlink_to(producer_path())
    (folder / "notes.txt").write_text("")
    monkeypatch.setenv("GENICAM_GENTL64_PATH", os.pathsep.join([str(folder), str(viky.parent)]))
    assert producer_files([viky]) == [viky.resolve(), producer_path().resolve()]


def test_a_folder_that_is_none_is_a_note(monkeypatch, tmp_path):
    monkeypatch.setenv("GENICAM_GENTL64_PATH", str(tmp_path / "gone"))
    notes: list[str] = []
    assert producer_files([], notes) == [producer_path().resolve()]
    assert notes == [f"GENICAM_GENTL64_PATH names {tmp_path / 'gone'}, which is no folder"]


@pytest.mark.parametrize("content", [b"", b"no library at all"])
def test_a_broken_producer_on_the_path_is_a_warning_and_one_that_was_named_an_error(monkeypatch, tmp_path, content):
    broken = tmp_path / "broken.cti"
    broken.write_bytes(content)
    monkeypatch.setenv("GENICAM_GENTL64_PATH", str(tmp_path))
    with Discovery() as found:
        assert [camera.serial for camera in found.cameras] == ["SIM0001", "SIM0002"]
        (warning,) = found.warnings
        assert warning.startswith(f"the GenTL producer {broken} does not load: ")
    with pytest.raises(UserError, match=r"broken\.cti does not load: "):
        Discovery([broken])


def test_a_library_that_is_no_producer_is_told_so(tmp_path):
    source, library = tmp_path / "x.c", tmp_path / "x.cti"
    source.write_text("int something(void) { return 1; }\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    with pytest.raises(UserError, match=r"x\.cti does not load: it is no GenTL producer"):
        Discovery([library])


def test_a_producer_that_refuses_to_start_is_told_in_its_own_words(tmp_path):
    source, library = tmp_path / "x.c", tmp_path / "x.cti"
    source.write_text("int GCInitLib(void) { return -1001; }\nint GCCloseLib(void) { return 0; }\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    with pytest.raises(UserError, match=r"x\.cti does not load: \S+"):
        Discovery([library])


@pytest.mark.parametrize("choice", ["1", "SIM0002"])
def test_a_camera_is_chosen_by_index_or_serial(choice):
    with Discovery() as found:
        assert found.choose(choice).serial == "SIM0002"


def test_a_serial_number_that_looks_like_an_index_is_none_where_it_cannot_be_one(other_producer):
    producer = other_producer("1", "0001")
    with Discovery([producer]) as found:
        assert [camera.serial for camera in found.cameras] == ["1", "0001", "SIM0001", "SIM0002"]
        chosen = {choice: found.choose(choice).index for choice in ("0", "1", "0001", name_alone("1", producer))}
        assert chosen == {"0": 0, "1": 1, "0001": 1, name_alone("1", producer): 0}
        for choice in ("01", "00", "4", "9" * 30):
            with pytest.raises(UserError, match=f"^no camera {choice}: there are 0 "):
                found.choose(choice)


def test_of_a_camera_that_two_producers_see_each_can_be_chosen(other_producer):
    other = other_producer()
    with Discovery([other]) as found:
        assert found.choose("SIM0002").index == 1
        assert found.choose(name_alone("SIM0002", producer_path().resolve())).index == 3
        with pytest.raises(UserError, match=r"no camera SIM0002@/nowhere/x\.cti: there are 0 "):
            found.choose(name_alone("SIM0002", "/nowhere/x.cti"))


def test_no_such_camera_lists_what_there_is():
    with Discovery() as found:
        with pytest.raises(UserError, match=r"no camera 2: there are 0 \(SIM0001\), 1 \(SIM0002\)$"):
            found.choose("2")
        with pytest.raises(UserError, match=r"no camera SIM001: .* did you mean SIM000[12]\?"):
            found.choose("SIM001")


def test_no_camera_at_all_says_where_to_name_a_producer(monkeypatch):
    def missing():
        raise UserError("not built")

    monkeypatch.setattr(discovery, "producer_path", missing)
    with Discovery() as found:
        assert found.warnings == ["not built"]
        with pytest.raises(UserError, match=r"no camera 0: .* --cti or in GENICAM_GENTL64_PATH"):
            found.open("0")


def test_open_keeps_the_handler_of_ctrl_c_and_closing_frees_the_camera():
    before = signal.getsignal(signal.SIGINT)
    with Discovery() as found:
        camera = found.open("SIM0001")
    assert signal.getsignal(signal.SIGINT) is before
    assert camera.node_map.DeviceSerialNumber.value == "SIM0001"
    assert camera.stream_handle
    assert camera.event_handle
    camera.close()
    with Discovery() as found:
        found.open("0").close()


def test_a_camera_that_another_process_has_is_shown_busy_and_refused():
    code = (
        "import sys; from ispeed.stream.camera import Discovery\n"
        "camera = Discovery().open('SIM0001'); print('open', flush=True); sys.stdin.read(); camera.close()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"open\n"
        with Discovery() as found:
            assert [camera.access for camera in found.cameras] == ["busy", "free"]
            with pytest.raises(UserError, match="camera SIM0001 is in use by another process") as raised:
                found.open("0")
            assert str(raised.value).endswith("its producer says: Requested resource is already in use")
        other.stdin.close()
        assert other.wait(10) == 0
    with Discovery() as found:
        assert found.cameras[0].access == "free"


class Denying:
    """A stand-in for Harvesters with a producer that denies access to its one camera, as those for USB and Ethernet do;
    the simulated one denies it to nobody."""

    device_info_list = ("device",)

    def create(self, index, config):
        raise gentl.AccessDeniedException(
            "GenTL exception: Access denied. (Message from the source: no rights) (ID: -1005)"
        )


@pytest.mark.parametrize(
    ("tl_type", "access", "causes"),
    [
        ("U3V", "free", ["another process", "udev rule", "lists it as free and says: no rights"]),
        ("GEV", "unreachable", ["another process", "another subnet", "lists it as unreachable"]),
        ("Custom", "unknown", ["another process", "udev rule", "another subnet"]),
        ("U3V", "busy", ["camera 123 is in use by another process: end that one", "says: no rights"]),
    ],
)
def test_a_camera_that_denies_access_is_told_with_all_that_it_may_be(tl_type, access, causes):
    info = CameraInfo(0, "123", "Maker", "Model", tl_type, access, Path("/x.cti"))
    with pytest.raises(UserError) as raised:
        discovery._create(Denying(), "device", info)
    assert all(cause in str(raised.value) for cause in causes), raised.value
    assert ("subnet" in str(raised.value)) == ("another subnet" in causes)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("libpython3.11.so.1.0: cannot open shared object file", "apt install libpython3.11"),
        ("No module named 'genicam'", "reinstall ispeed with pip"),
    ],
)
def test_a_binding_that_does_not_load_says_what_to_install(error, message):
    code = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, *rest):\n"
        f"        if name == 'harvesters': raise ImportError({error!r})\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "from ispeed.stream.camera import list_cameras\n"
        "try: list_cameras()\n"
        "except Exception as e: print(type(e).__name__, e)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.startswith("UserError ")
    assert message in result.stdout


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("GenTL exception: X. (Message from the source: it is (very) sad) (ID: -1014)", "it is (very) sad"),
        ("GenTL exception: In use. (Message from the source: ) (ID: -1004)", "In use"),
        ("Value 5 is bad. : OutOfRangeException thrown in node 'W' while calling", "Value 5 is bad"),
        ("two\nlines.", "two lines"),
        ("", "str"),
    ],
)
def test_the_bindings_messages_are_made_plain(text, plain):
    assert discovery.plain_text(text) == plain
