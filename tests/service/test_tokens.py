"""The token file: it holds hashes, may change while in use, and makes no token valid if it is damaged."""

import pytest

from uniemo_ray.service.api import guard
from uniemo_ray.service.tokens import RESERVED, TokenFile, add_token, main, read_tokens, revoke_token


def test_tokens_are_hashed_and_named(tmp_path):
    path = tmp_path / "tokens.json"
    ann, bob = add_token(path, "ann"), add_token(path, "bob")
    assert ann != bob
    assert len(ann) > 40
    assert ann not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    tokens = TokenFile(path)
    assert (tokens.name_of(ann), tokens.name_of(bob)) == ("ann", "bob")
    assert tokens.name_of("") is tokens.name_of(ann[:-1]) is tokens.name_of("\ud800") is None


def test_changes_are_seen_after_a_second_and_not_before(tmp_path):
    path, now = tmp_path / "tokens.json", [0.0]
    ann = add_token(path, "ann")
    tokens = TokenFile(path, clock=lambda: now[0])
    revoke_token(path, "ann")
    bob = add_token(path, "bob")
    assert tokens.name_of(ann) == "ann"
    now[0] = 1.0
    assert tokens.name_of(ann) is None
    assert tokens.name_of(bob) == "bob"


@pytest.mark.parametrize("damage", ["{", "[]", '{"tokens": [{"name": "ann"}]}', None])
def test_a_damaged_file_lets_nobody_in_until_repaired(tmp_path, damage):
    path, now = tmp_path / "tokens.json", [0.0]
    ann = add_token(path, "ann")
    tokens = TokenFile(path, clock=lambda: now[0])
    good = path.read_text()
    if damage is None:
        path.unlink()
    else:
        path.write_text(damage)
    now[0] = 1.0
    assert tokens.name_of(ann) is None
    with pytest.raises(ValueError, match="token file"):
        TokenFile(path)
    path.write_text(good)
    now[0] = 2.0
    assert tokens.name_of(ann) == "ann"


def test_the_command(tmp_path, capsys):
    path = tmp_path / "tokens.json"
    assert main(["add", "ann", "--file", str(path)]) == 0
    secret = capsys.readouterr().out.strip()
    assert TokenFile(path).name_of(secret) == "ann"
    assert main(["list", "--file", str(path)]) == 0
    listed = capsys.readouterr().out
    assert "ann" in listed
    assert secret not in listed
    for wrong in (["add", "ann"], ["add", "no good"], ["revoke", "bob"]):
        assert main([*wrong, "--file", str(path)]) == 2
        assert capsys.readouterr().err.startswith("error: ")
    assert main(["revoke", "ann", "--file", str(path)]) == 0
    assert read_tokens(path).tokens == ()


@pytest.mark.parametrize("name", RESERVED)
def test_names_of_callers_without_a_token_are_reserved(tmp_path, name):
    with pytest.raises(ValueError, match="stands for callers without a token"):
        add_token(tmp_path / "tokens.json", name)
    assert not (tmp_path / "tokens.json").exists()


def test_the_reserved_names_are_those_of_the_guard():
    assert {guard.LOCAL, guard.UNKNOWN} < set(RESERVED)
