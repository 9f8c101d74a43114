"""The application's side of key delivery, against an HTTPS end that says what a test wants."""

import base64
import datetime
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from click.testing import CliRunner, Result
from tests.support.scripted_kme import Answer, Asked, container, scripted_kme

from bellhop.hal.errors import BellhopError, ConfigError, PeerError, RequestError
from bellhop.node.cli.main import main
from bellhop.node.etsi_client import (
    ClientProfile,
    DeliveredKey,
    EtsiClient,
    KmeStatus,
    load_profile,
    with_kme,
)
from bellhop.node.pki import init_authority, issue
from bellhop.node.tls import Credentials, Party, PartyKind, read_credentials

ID = "0190a1b2-0000-4000-8000-000000000001"
KEY = bytes(range(32))
ALICE, BOB = "sae-alice", "Zürich/1"
STATUS = {
    "source_KME_ID": "kme-a", "target_KME_ID": "kme-b", "master_SAE_ID": ALICE,
    "slave_SAE_ID": BOB, "key_size": 256, "stored_key_count": 3, "max_key_count": 10,
    "max_key_per_request": 5, "max_key_size": 1024, "min_key_size": 64, "max_SAE_ID_count": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pki")
    now = datetime.datetime.now(datetime.UTC)
    init_authority(folder, now=now)
    for kind, name in ((PartyKind.KME, "kme-a"), (PartyKind.SAE, ALICE), (PartyKind.SAE, BOB)):
        issued = issue(folder, Party(kind, name), now=now)
        profile = issued.key.parent / "profile.toml"
        profile.write_text(
            'kme = "https://127.0.0.1:1"\n'
            f'certificate = "{issued.certificate.name}"\n'
            f'key = "{issued.key.name}"\n'
            'authority = "authority.crt.pem"\n'
        )
    return folder


def profile_of(pki: Path, sae: str) -> Path:
    folder = {ALICE: "sae-alice", BOB: "Z%C3%BCrich%2F1"}[sae]
    return pki / "sae" / folder / "profile.toml"


def kme_credentials(pki: Path) -> Credentials:
    home = pki / "kme" / "kme-a"
    return read_credentials(
        home / "kme-a.crt.pem", home / "kme-a.key.pem", home / "authority.crt.pem"
    )


def profile(pki: Path, url: str, kme_id: str | None = "kme-a") -> ClientProfile:
    read = load_profile(profile_of(pki, ALICE))
    return ClientProfile(
        kme=url,
        kme_id=kme_id,
        certificate=read.certificate,
        key=read.key,
        authority=read.authority,
    )


def test_what_is_asked_and_what_is_delivered(pki: Path) -> None:
    def answer(asked: Asked) -> web.Response:
        if asked.path.endswith("/status"):
            return web.json_response(STATUS)
        return container(**{ID: KEY})

    async def talk(client: EtsiClient) -> tuple[KmeStatus, list[DeliveredKey], list[DeliveredKey]]:
        return (
            await client.status(BOB),
            await client.enc_keys(BOB, 1, 256),
            await client.dec_keys(BOB, [ID]),
        )

    with scripted_kme(kme_credentials(pki), answer) as kme:
        status, fresh, known = with_kme(profile(pki, kme.url), talk)
    assert status.stored_key_count == 3
    assert fresh == known == [DeliveredKey(ID, bytearray(KEY))]
    assert base64.b64encode(KEY).decode() not in repr(fresh) and str(KEY) not in repr(fresh)
    path = "/api/v1/keys/Z%C3%BCrich%2F1/"
    assert [(a.caller, a.method, a.path, a.body) for a in kme.asked] == [
        (ALICE, "GET", f"{path}status", None),
        (ALICE, "POST", f"{path}enc_keys", {"number": 1, "size": 256}),
        (ALICE, "POST", f"{path}dec_keys", {"key_IDs": [{"key_ID": ID}]}),
    ]


def error(status: int, message: str, **headers: str) -> Callable[[Asked], web.Response]:
    return lambda _: web.json_response({"message": message}, status=status, headers=headers)


def text(body: str, status: int = 200) -> Callable[[Asked], web.Response]:
    return lambda _: web.Response(text=body, status=status, content_type="application/json")


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (error(400, "size shall be a multiple of 8"), RequestError, "size shall be a multiple"),
        (error(401, "not yours"), RequestError, "not yours"),
        (error(503, "no keys", **{"Retry-After": "7"}), PeerError, "no keys; try again in 7 s"),
        (error(503, "a\x1b[2Jb\nc"), PeerError, r"a \[2Jb c"),
        (text("<html>", 503), PeerError, "no reason given"),
        (text("", 302), PeerError, "302"),
        (text("{"), PeerError, "not that of ETSI"),
        (text('{"keys": [{"key_ID": "x", "key": "???"}]}'), PeerError, "not that of ETSI"),
        (text('{"keys": []}'), PeerError, "other keys"),
        (lambda _: container(a=KEY, b=KEY), PeerError, "other keys"),
        (lambda _: container(a=KEY[:8]), PeerError, "other keys"),
    ],
)
def test_answers_that_bring_no_key(
    pki: Path, answer: Answer, kind: type[BellhopError], words: str
) -> None:
    with scripted_kme(kme_credentials(pki), answer) as kme, pytest.raises(kind, match=words):
        with_kme(profile(pki, kme.url), lambda client: client.enc_keys(BOB, 1, 256))


def test_another_id_than_the_one_asked_for_is_refused(pki: Path) -> None:
    with (
        scripted_kme(kme_credentials(pki), lambda _: container(other=KEY)) as kme,
        pytest.raises(PeerError, match="other keys"),
    ):
        with_kme(profile(pki, kme.url), lambda client: client.dec_keys(BOB, [ID]))


def test_nothing_is_sent_to_another_kme(pki: Path) -> None:
    with scripted_kme(kme_credentials(pki), lambda _: container(**{ID: KEY})) as kme:
        with pytest.raises(PeerError, match="kme-a"):
            with_kme(profile(pki, kme.url, "kme-z"), lambda client: client.enc_keys(BOB))
        assert kme.asked == []


def test_a_kme_that_is_not_there(pki: Path) -> None:
    with pytest.raises(PeerError, match="cannot be reached"):
        with_kme(profile(pki, "https://127.0.0.1:1"), lambda client: client.status(BOB))


@pytest.mark.parametrize("url", ["http://127.0.0.1", "127.0.0.1:1", "https://", "https://a?b=c"])
def test_urls_that_are_none(pki: Path, url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        EtsiClient(profile(pki, url))
    assert caught.value.field == "kme"


class Shelf:
    """Keys by ID, each for its slave once: what two honest KMEs are together."""

    def __init__(self) -> None:
        self.keys: dict[str, bytes] = {}

    def answer(self, asked: Asked) -> web.Response:
        if asked.path.endswith("/enc_keys"):
            made = {
                f"key-{len(self.keys)}-{i}": os.urandom(32) for i in range(asked.body["number"])
            }
            self.keys |= made
            return container(**made)
        wanted = [row["key_ID"] for row in asked.body["key_IDs"]]
        if not set(wanted) <= set(self.keys):
            return error(400, "one or more keys specified are not found on KME")(asked)
        return container(**{key_id: self.keys.pop(key_id) for key_id in wanted})


def run(pki: Path, sae: str, url: str, *arguments: str) -> Result:
    client = ["--client", str(profile_of(pki, sae)), "--kme", url]
    return CliRunner().invoke(main, [*arguments, *client, "--json"])


def succeed(pki: Path, sae: str, url: str, *arguments: str) -> dict[str, Any]:
    result = run(pki, sae, url, *arguments)
    assert result.exit_code == 0, result.output
    parsed: dict[str, Any] = json.loads(result.stdout)
    return parsed


def test_two_applications_get_the_same_keys(pki: Path, tmp_path: Path) -> None:
    with scripted_kme(kme_credentials(pki), Shelf().answer) as kme:
        ours, theirs = tmp_path / "ours", tmp_path / "theirs"
        got = succeed(pki, ALICE, kme.url, "keys", "get", "--to", BOB, "--number", "2",
                      "--out", str(ours))  # fmt: skip
        ids = [row["key_ID"] for row in got["keys"]]
        options = [word for key_id in ids for word in ("--key-id", key_id)]
        again = ("keys", "retrieve", "--from", ALICE, *options)
        succeed(pki, BOB, kme.url, *again, "--out", str(theirs))
        assert run(pki, BOB, kme.url, *again, "--out", str(tmp_path / "third")).exit_code == 3
        shown = succeed(pki, ALICE, kme.url, "keys", "get", "--to", BOB, "--show")
    assert json.loads(ours.read_text()) == json.loads(theirs.read_text())
    assert stat.S_IMODE(ours.stat().st_mode) == 0o600
    for row in json.loads(ours.read_text())["keys"]:
        assert len(base64.b64decode(row["key"])) == 32
        assert row["key"] not in json.dumps(got)
    assert len(base64.b64decode(shown["keys"][0]["key"])) == 32
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours", "theirs"]


def test_keys_need_a_place_before_they_are_fetched(pki: Path, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.touch()
    get = ("keys", "get", "--to", BOB)
    with scripted_kme(kme_credentials(pki), Shelf().answer) as kme:
        for where in ([], ["--out", str(taken)], ["--out", str(tmp_path / "no" / "where")]):
            assert run(pki, ALICE, kme.url, *get, *where).exit_code == 2
        assert kme.asked == []


def test_a_file_is_sealed_and_opened(pki: Path, tmp_path: Path) -> None:
    letter = tmp_path / "letter.txt"
    letter.write_bytes(os.urandom(2**20 + 5))
    with scripted_kme(kme_credentials(pki), Shelf().answer) as kme:
        sealed = succeed(pki, ALICE, kme.url, "seal", str(letter), "--to", BOB)
        file = sealed["file"]
        assert (sealed["master_SAE_ID"], sealed["slave_SAE_ID"]) == (ALICE, BOB)
        there = run(pki, BOB, kme.url, "open", file)
        assert there.exit_code == 2 and "exists" in there.stderr  # and the key is still there
        opened = succeed(pki, BOB, kme.url, "open", file, "--out", str(tmp_path / "opened"))
    assert Path(opened["file"]).read_bytes() == letter.read_bytes()
    assert stat.S_IMODE(Path(opened["file"]).stat().st_mode) == 0o600


def test_no_key_is_burnt_for_a_damaged_or_misaddressed_file(pki: Path, tmp_path: Path) -> None:
    letter, out = tmp_path / "letter", tmp_path / "out"
    letter.write_bytes(b"text" * 100)
    with scripted_kme(kme_credentials(pki), Shelf().answer) as kme:
        file = Path(succeed(pki, ALICE, kme.url, "seal", str(letter), "--to", BOB)["file"])
        intact = file.read_bytes()
        before = len(kme.asked)
        for damaged in (intact[:-1], intact[:100], intact[:-40] + b"x" + intact[-39:], b""):
            file.write_bytes(damaged)
            result = run(pki, BOB, kme.url, "open", str(file), "--out", str(out))
            assert result.exit_code == 3
        file.write_bytes(intact)
        result = run(pki, ALICE, kme.url, "open", str(file), "--out", str(out))
        assert result.exit_code == 3 and "key was not fetched" in result.stderr
        assert len(kme.asked) == before and not out.exists()
        succeed(pki, BOB, kme.url, "open", str(file), "--out", str(out))
    assert out.read_bytes() == letter.read_bytes()


def test_a_key_that_does_not_fit_leaves_no_output(pki: Path, tmp_path: Path) -> None:
    letter = tmp_path / "letter"
    letter.write_bytes(b"text")
    shelf = Shelf()
    with scripted_kme(kme_credentials(pki), shelf.answer) as kme:
        sealed = succeed(pki, ALICE, kme.url, "seal", str(letter), "--to", BOB)
        shelf.keys = dict.fromkeys(shelf.keys, bytes(32))
        result = run(pki, BOB, kme.url, "open", sealed["file"], "--out", str(tmp_path / "out"))
    assert result.exit_code == 3
    assert sealed["key_ID"] in result.stderr and "is gone" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["letter", "letter.sealed"]


def test_a_client_must_be_told_where_its_kme_is() -> None:
    result = CliRunner().invoke(main, ["keys", "get", "--to", BOB, "--show", "--kme", "https://a"])
    assert result.exit_code == 2
    assert "--sae-cert, --sae-key, --authority" in result.stderr
