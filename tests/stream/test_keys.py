"""`isp-stream keys` and the files that it makes."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
import zmq.auth

from ispeed.engines.errors import UserError
from ispeed.stream import key_files
from ispeed.stream.curve import Guard, read_client
from ispeed.stream.key_files import read_pair, read_public, write_pair
from ispeed.stream.keys_cli import main, make_keys


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Keys of a publisher, and of the clients ann (reads) and ben (controls)."""
    made = tmp_path / "keys"
    make_keys(made, ["ann"])
    make_keys(made, ["ben"], control=True)
    return made


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_made_and_who_may_read_it(folder: Path):
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    secrets = ["ann/client.key_secret", "ben/client.key_secret", "server.key_secret"]
    public = ["ann/server.key", "ben/server.key", "clients/ann.key", "clients/ben.key", "server.key"]
    assert files == sorted([*secrets, *public])
    assert {mode(folder / name) for name in secrets} == {0o600}
    assert {mode(path) for path in (folder, folder / "clients", folder / "ann")} == {0o700}
    for name in secrets:  # nowhere else
        secret = read_pair(folder / name).secret
        assert [path for path in folder.rglob("*") if path.is_file() and secret in path.read_bytes()] == [folder / name]


def test_a_umask_of_nothing_makes_no_secret_public(tmp_path: Path):
    before = os.umask(0)
    try:
        make_keys(tmp_path / "keys", ["ann"])
    finally:
        os.umask(before)
    assert mode(tmp_path / "keys/server.key_secret") == mode(tmp_path / "keys/ann/client.key_secret") == 0o600
    assert mode(tmp_path / "keys") == 0o700


def test_pyzmq_reads_the_same_keys(folder: Path):
    assert zmq.auth.load_certificate(folder / "server.key_secret") == read_pair(folder / "server.key_secret")[:2]
    assert zmq.auth.load_certificate(folder / "clients/ben.key") == (
        read_public(folder / "clients/ben.key").public,
        None,
    )


def test_keys_that_pyzmq_made_are_read(tmp_path: Path):
    public, secret = zmq.auth.create_certificates(tmp_path, "other")
    os.chmod(secret, 0o600)
    assert read_pair(Path(secret))[:2] == zmq.auth.load_certificate(secret)
    assert read_public(Path(public)).public == zmq.auth.load_certificate(public)[0]


def test_what_a_client_may_stands_on_the_server(folder: Path):
    assert [read_public(folder / f"clients/{name}.key").may for name in ("ann", "ben")] == ["", "control"]


def test_the_output_names_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(tmp_path / "k"), "--client", "ann"]) == 0
    said = capsys.readouterr().out
    for part in ("--publish tcp://0.0.0.0:5555 --keys", "scp -rp", "isp-view tcp://", "--keys ann", "clients/ann.key"):
        assert part in said


def test_the_command_as_a_user_runs_it(tmp_path: Path, isp_stream_command: list[str]):
    done = subprocess.run(
        [*isp_stream_command, "keys", str(tmp_path / "k")], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "k/server.key_secret").is_file()
    again = subprocess.run(
        [*isp_stream_command, "keys", str(tmp_path / "k")], capture_output=True, text=True, timeout=60
    )
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr.startswith("isp-stream keys: error: ")
    assert again.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "has the server's keys already"),
        (["--client", "ann"], "ann is there already and is not overwritten"),
        (["--client", "clients"], "is no name for a client"),
        (["--client", "../up"], "is no name for a client"),
        (["--client", ""], "is no name for a client"),
        (["--control"], "name them with --client"),
    ],
)
def test_nothing_is_overwritten_and_one_sentence_says_so(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
):
    capsys.readouterr()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert main([str(folder), *arguments]) == 2
    told = capsys.readouterr()
    assert part in told.err
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


# -- keys that clients make themselves --------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The public half of a pair that carl has made, who would like to control; the secret one is beside it."""
    (tmp_path / "carl").mkdir(0o700)
    public, secret = (Path(name) for name in zmq.auth.create_certificates(tmp_path / "carl", "carl"))
    secret.chmod(0o600)
    public.write_text(public.read_text().replace("curve\n", "metadata\n    may = control\ncurve\n"))
    public.chmod(0o644)
    assert read_public(public).may == "control"
    return public


@pytest.mark.parametrize(("options", "may"), [([], ""), (["--control"], "control")])
def test_of_a_file_that_is_handed_over_the_key_is_taken_and_no_right(
    folder: Path, own: Path, capsys: pytest.CaptureFixture[str], options: list[str], may: str
):
    own.write_text(own.read_text() + "    other = 1\n")
    capsys.readouterr()
    assert main([str(folder), "--accept", str(own), *options]) == 0
    listed = folder / "clients/carl.key"
    assert read_public(listed) == (read_public(own).public, b"", may)
    assert ("control" in listed.read_text(), "other" in listed.read_text()) == (bool(may), False)
    assert mode(listed) == 0o644
    told = capsys.readouterr().out
    assert f"carl may {'read frames and control the camera' if may else 'read frames'}: take it away" in told
    assert f"carl needs {folder / 'server.key'} beside its own client.key_secret" in told


def test_a_client_whose_key_was_taken_comes_in(folder: Path, own: Path):
    assert main([str(folder), "--accept", str(own)]) == 0
    guard = Guard(folder)
    assert guard.clients == ["ann", "ben", "carl", "server"]
    guard.close()
    own.with_suffix(".key_secret").rename(own.parent / "client.key_secret")
    shutil.copy(folder / "server.key", own.parent)
    assert read_client(own.parent).public == read_public(folder / "clients/carl.key").public


def test_a_publisher_without_keys_makes_its_own_beside_the_one_that_it_takes(tmp_path: Path, own: Path):
    assert main([str(tmp_path / "new"), "--accept", str(own), "--client", "dora"]) == 0
    assert sorted(path.name for path in (tmp_path / "new/clients").iterdir()) == ["carl.key", "dora.key"]
    assert read_pair(tmp_path / "new/server.key_secret")


def secret_of(own: Path, folder: Path) -> Path:
    return own.with_suffix(".key_secret")


def named(name: str):
    return lambda own, folder: own.rename(own.parent / name)


def written(text: str):
    def write(own: Path, folder: Path) -> Path:
        own.write_text(text)
        return own

    return write


def another_name_of(listed: str):
    return lambda own, folder: Path(shutil.copy(folder / listed, own.parent / "dora.key"))


def open_to_all(own: Path, folder: Path) -> Path:
    own.chmod(0o666)
    return own


@pytest.mark.parametrize(
    ("spoil", "part"),
    [
        (secret_of, "carl.key_secret holds a secret key, which its owner must show to nobody"),
        (named("ann.key"), "clients/ann.key is there already and is not overwritten: take it away first, or rename"),
        (named("server.key"), "--accept 'server' is no name for a client"),
        (named(".key"), "--accept '' is no name for a client"),
        (named("carl smith.key"), "--accept 'carl smith' is no name for a client"),
        (lambda own, folder: own.parent, "is no file"),
        (lambda own, folder: own.parent / "nobody.key", "cannot read the key"),
        (lambda own, folder: Path(), "--accept '' is no name for a client"),
        (written(""), "is no key file, or is cut off"),
        (written("no key"), "is no key file, or is cut off"),
        (another_name_of("clients/ben.key"), "/clients/ben.key: its owner must make one of his own"),
        (another_name_of("server.key"), "/server.key: its owner must make one of his own"),
        (open_to_all, "can be changed by other users: run chmod go-w"),
    ],
)
def test_what_is_not_taken_leaves_everything_and_one_sentence_says_why(
    folder: Path, own: Path, capsys: pytest.CaptureFixture[str], spoil, part: str
):
    file = spoil(own, folder)
    capsys.readouterr()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert main([str(folder), "--accept", str(file), "--client", "dora"]) == 2
    told = capsys.readouterr()
    assert part in told.err
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_the_same_file_twice_is_refused(folder: Path, own: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(folder), "--accept", str(own), "--accept", str(own)]) == 2
    assert "carl.key is there already" in capsys.readouterr().err
    assert not (folder / "clients/carl.key").exists()


# -- what is there already, or is not ---------------------------------------------------------------------------


def test_half_a_server_is_not_taken_for_one(folder: Path):
    (folder / "server.key").unlink()
    with pytest.raises(UserError, match=r"server\.key_secret is there already"):
        make_keys(folder, ["carl"])
    assert not (folder / "carl").exists()


def test_a_client_that_cannot_be_listed_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def full(path: Path, text: str, mode: int = 0o600) -> None:
        if path.parent.name == "clients":
            raise UserError(f"cannot write {path}: no space left on device")
        write_new(path, text, mode)

    write_new = key_files.write_new
    monkeypatch.setattr(key_files, "write_new", full)  # the disk is full, which cannot be made here
    with pytest.raises(UserError, match="no space left"):
        make_keys(folder, ["carl"])
    assert not (folder / "carl").exists()
    assert not (folder / "clients/carl.key").exists()


def test_a_folder_that_others_can_read_takes_no_secret(tmp_path: Path):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o755)
    with pytest.raises(UserError, match="holds secret keys: run chmod 700"):
        make_keys(tmp_path / "open", [])
    assert list((tmp_path / "open").iterdir()) == []


# -- files that are not what they should be ---------------------------------------------------------------------

_DAMAGE = {
    "empty": lambda data: b"",
    "cut off": lambda data: data[: data.index(b"secret-key") + 30],
    "a letter that no key has": lambda data: data.replace(b'secret-key = "', b'secret-key = "~')[:-2] + b'"\n',
    "above 32 bits": lambda data: data[: data.index(b"secret-key")] + b'secret-key = "' + b"#" * 40 + b'"\n',
    "another secret": lambda data: (
        data[: data.index(b"secret-key")] + b'secret-key = "' + zmq.curve_keypair()[1] + b'"'
    ),
    "no secret": lambda data: data[: data.index(b"secret-key")],
    "binary": lambda data: bytes(range(256)) * 4,
    "long": lambda data: data + b"#" * 5000,
}


@pytest.mark.parametrize("damage", _DAMAGE)
def test_a_damaged_secret_is_refused_in_a_sentence(folder: Path, damage: str):
    path = folder / "ann/client.key_secret"
    path.write_bytes(_DAMAGE[damage](path.read_bytes()))
    with pytest.raises(UserError, match=r"is no key file, or is cut off|is damaged|holds no secret key") as error:
        read_client(folder / "ann")
    assert str(path) in str(error.value)


@pytest.mark.parametrize("name", ["server.key_secret", "ann/client.key_secret"])
def test_a_secret_that_others_can_read_is_refused(folder: Path, name: str):
    (folder / name).chmod(0o640)
    with pytest.raises(UserError, match=f"a secret key must not: run chmod 600 {folder / name}"):
        _ = Guard(folder) if name.startswith("server") else read_client(folder / "ann")


@pytest.mark.parametrize("name", ["", "ann", "clients", "clients/ann.key"])
def test_what_others_can_change_is_refused(folder: Path, name: str):
    (folder / name).chmod(0o777)
    with pytest.raises(UserError, match=f"can be changed by other users: run chmod go-w {folder / name}"):
        _ = read_client(folder / "ann") if name == "ann" else Guard(folder)


@pytest.mark.parametrize(
    ("wrong", "part"),
    [
        (lambda folder: folder / "nobody", "there is no folder of keys"),
        (lambda folder: folder / "ann/client.key_secret", "there is no folder of keys"),
        (lambda folder: folder / "clients", "holds no client.key_secret"),
    ],
)
def test_what_is_no_folder_of_a_client(folder: Path, wrong, part: str):
    with pytest.raises(UserError, match=part):
        read_client(wrong(folder))


def test_a_pipe_of_that_name_holds_nobody_up(folder: Path):
    (folder / "ann/server.key").unlink()
    os.mkfifo(folder / "ann/server.key")
    with pytest.raises(UserError, match="is no file"):
        read_client(folder / "ann")


def test_a_folder_of_that_name_lets_nobody_in_and_is_told(folder: Path):
    told: list[str] = []
    guard = Guard(folder, told.append)
    (folder / "clients/odd.key").mkdir()
    with guard.context.socket(zmq.REQ) as asking:
        asking.linger = 0
        asking.connect("inproc://zeromq.zap.01")
        asking.send(b"1.0")
        guard.poll()
    guard.close()
    assert told[0] == f"{folder / 'clients/odd.key'} is no file: isp-stream keys makes key files"


def test_no_keys_where_zmq_has_no_curve(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(zmq, "has", lambda what: False)  # a build that this machine does not have
    for use in (lambda: Guard(folder), lambda: read_client(folder / "ann"), lambda: make_keys(folder, ["carl"])):
        with pytest.raises(UserError, match="built without CURVE"):
            use()


def test_a_pair_is_made_whole_or_not_at_all(tmp_path: Path):
    (tmp_path / "b.key").write_text("mine")
    with pytest.raises(UserError, match=r"b\.key is there already"):
        write_pair(tmp_path / "a.key_secret", tmp_path / "b.key")
    assert [path.name for path in tmp_path.iterdir()] == ["b.key"]
