# SPDX-License-Identifier: LGPL-2.1-or-later
"""Names of stores: what may be in them, and that they are not those of channels."""

import os

import pytest

import ferry


@pytest.mark.parametrize("name", ["a b", "it's", 'a "quoted" one', "~tilde", "k=v", "ü", "x" * 200])
@pytest.mark.parametrize("transport", ["memfd", "posix-shm"])
def test_names(name: str, transport: str) -> None:
    with ferry.Store(name, transport=transport) as store, ferry.Store(name, transport=transport, mode="join") as other:
        store["k"] = [1]
        assert other["k"] == [1]
        assert store.name == other.name == name


@pytest.mark.parametrize("name", ["", "a/b", ".hidden", "x" * 300])
def test_bad_names(name: str) -> None:
    with pytest.raises((ferry.FerryError, ValueError)):
        ferry.Store(name)


def test_names_of_channels() -> None:
    name = f"of-a-channel-{os.getpid()}"
    with ferry.Channel(f"memfd name={name}", "receiver"), pytest.raises(ferry.FerryError, match="name of a channel"):
        ferry.Store(name)
    with ferry.Store(name), pytest.raises(ferry.FerryError, match="name of a store"):
        ferry.Channel(f"memfd name={name}", "receiver").open()


def test_channel_in_mode_store() -> None:
    with pytest.raises(ferry.FerryError, match="ferry.Store"):
        ferry.Channel("memfd name=x mode=store", "receiver").open()
