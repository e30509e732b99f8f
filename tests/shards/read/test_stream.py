from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader

from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.shards.read.open_set import open_set
from shardwave.shards.read.stream import Stream, stream
from tests.shards.server import serve

BOTH = ["train", "val"]


def local(folder: Path, splits: str | list[str], view: str) -> dict[str, tuple[np.ndarray, int, dict]]:
    """The samples as the local reader has them, by key."""
    found = open_set(folder).view(splits, view)
    array = found.gather(np.arange(len(found)))["npy"]
    return {found.key(i): (array[i], int(found.cls[i]), found.meta(i)) for i in range(len(found))}


def same(samples: list[dict], expected: dict[str, tuple[np.ndarray, int, dict]]) -> bool:
    """Whether these are the same samples, each once."""
    assert sorted(sample["__key__"] for sample in samples) == sorted(expected)
    for sample in samples:
        array, cls, meta = expected[sample["__key__"]]
        assert (sample["npy"] == array).all() and sample["cls"] == cls and sample["json"] == meta
    return True


@pytest.mark.parametrize("shuffle", [0, 7, 1000])
@pytest.mark.parametrize("view", ["full", "slice"])
def test_the_same_samples_come_out_of_a_folder(built: Path, view: str, shuffle: int) -> None:
    assert same(list(stream(str(built), BOTH, view, shuffle=shuffle)), local(built, BOTH, view))


def test_http_and_pipes_give_the_same_samples(built: Path) -> None:
    expected = local(built, BOTH, "slice")
    with serve(built) as server:
        assert same(list(stream(server.url, BOTH, "slice", verify=True)), expected)
        assert server.requests["manifest.json"] == 1 and max(server.requests.values()) == 1
    files = sorted(built.glob("*-slice-*.tar"))
    assert same(list(Stream([f"pipe:cat '{path}'" for path in files])), expected)
    assert same(list(Stream([f"file://{path}" for path in files])), expected)


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("trouble", ["503", "stall", "cut"])
def test_a_server_that_stalls_cuts_and_refuses_costs_no_sample(
    built: Path, trouble: str, ranges: bool
) -> None:
    names = ["manifest.json", "train-slice-0000.tar", "val-slice-0002.tar"]
    troubles = {(name, number): trouble for name in names for number in (1, 2)}
    with serve(built, troubles, ranges=ranges) as server:
        samples = list(stream(server.url, BOTH, "slice", timeout=0.3, verify=True))
        assert [server.requests[name] for name in names] == [3, 3, 3]
    assert same(samples, local(built, BOTH, "slice"))


def test_all_troubles_at_once(built: Path) -> None:
    troubles = {
        ("train-full-0000.tar", number): trouble
        for number, trouble in enumerate(("503", "cut", "stall", "503", "cut"), 1)
    }
    with serve(built, troubles) as server:
        assert same(list(stream(server.url, BOTH, timeout=0.3)), local(built, BOTH, "full"))
        assert server.requests["train-full-0000.tar"] == 6


def test_a_server_that_never_recovers_is_given_up(built: Path) -> None:
    troubles = {("train-full-0001.tar", number): "503" for number in range(1, 100)}
    with serve(built, troubles) as server:
        with pytest.raises(
            ShardwaveError, match=r"train-full-0001.tar: given up after 3 retries \(status 503\)"
        ):
            list(stream(server.url, "train", retries=3))
        assert server.requests["train-full-0001.tar"] == 4
        with pytest.raises(ShardwaveError, match="/none/manifest.json: the server answers 404"):
            stream(f"{server.url}/none", "train")
    with pytest.raises(ShardwaveError, match="given up after 1 retries"):
        stream(server.url, "train", retries=1)  # nobody listens any more


def test_content_that_changes_in_between_is_noticed(built: Path) -> None:
    with (
        serve(built, {("train-full-0000.tar", 1): "cut", ("train-full-0000.tar", 2): "changed"}) as server,
        pytest.raises(ShardwaveError, match="train-full-0000.tar: changed while it was being read"),
    ):
        list(stream(server.url, "train"))


def test_ranks_and_workers_share_the_shards(built: Path) -> None:
    expected = local(built, BOTH, "slice")
    for world_size in (2, 3, 6):
        parts = [
            list(stream(str(built), BOTH, "slice", seed=3, rank=rank, world_size=world_size))
            for rank in range(world_size)
        ]
        assert all(parts) and same(list(itertools.chain(*parts)), expected)
    with pytest.raises(UsageError, match="6 shards cannot be split over 7 ranks"):
        stream(str(built), BOTH, rank=0, world_size=7)


@pytest.mark.slow
def test_data_loader_workers_share_the_shards(built: Path) -> None:
    parts = [
        list(
            DataLoader(
                stream(str(built), BOTH, "slice", rank=rank, world_size=2), batch_size=None, num_workers=2
            )
        )
        for rank in range(2)
    ]
    samples = [{**sample, "npy": np.asarray(sample["npy"])} for sample in itertools.chain(*parts)]
    assert same(samples, local(built, BOTH, "slice"))


def test_the_order_follows_from_seed_and_epoch(built: Path) -> None:
    def keys(seed: int, epoch: int, shuffle: int = 1000) -> list[str]:
        made = stream(str(built), BOTH, "slice", seed=seed, shuffle=shuffle)
        made.set_epoch(epoch)
        return [sample["__key__"] for sample in made]

    assert keys(0, 0) == keys(0, 0) != keys(0, 1)
    assert keys(1, 0) != keys(0, 0)
    order = [shard for split in BOTH for shard in sorted(built.glob(f"{split}-slice-*.tar"))]
    assert keys(0, 0, 0) == list(
        itertools.chain(*([sample["__key__"] for sample in Stream([str(path)], shuffle=0)] for path in order))
    )


def damaged(built: Path, folder: Path, change) -> Path:  # type: ignore[no-untyped-def]
    shutil.copytree(built, folder)
    path = folder / "train-full-0001.tar"
    path.write_bytes(change(path.read_bytes()))
    return folder


def test_truncated_and_changed_shards_are_named(built: Path, tmp_path: Path) -> None:
    for number, cut in enumerate((100, 4000, 512 * 9, -1024)):
        folder = damaged(built, tmp_path / str(number), lambda data, cut=cut: data[:cut])
        with pytest.raises(ShardwaveError, match="train-full-0001.tar: "):
            list(stream(str(folder), "train"))
        with serve(folder) as server, pytest.raises(ShardwaveError, match="train-full-0001.tar: "):
            list(stream(server.url, "train"))
    folder = damaged(
        built, tmp_path / "flipped", lambda data: data[:700] + bytes([data[700] ^ 1]) + data[701:]
    )
    with pytest.raises(
        ShardwaveError, match="train-full-0001.tar: the BLAKE3 digest differs from the manifest"
    ):
        list(stream(str(folder), "train", verify=True))


def test_a_pipe_that_fails_is_named(built: Path) -> None:
    tar = built / "train-full-0000.tar"
    for command in (f"head -c 3000 '{tar}'", "false", f"cat '{tar}'; exit 3"):
        with pytest.raises((ShardwaveError, OSError), match="truncated|exit"):
            list(Stream([f"pipe:{command}"]))


def test_unknown_places_are_named(built: Path, tmp_path: Path) -> None:
    with pytest.raises(ShardwaveError, match="No such file"):
        stream(str(tmp_path / "none"), "train")
    with pytest.raises(
        UsageError, match=r"no slice view of split test: it has train \(full, slice\), val \(full, slice\)"
    ):
        stream(str(built), "test", "slice")
    with pytest.raises(UsageError, match="at least one shard"):
        Stream([])
    with pytest.raises(UsageError, match="nosuchscheme"):
        list(Stream(["nosuchscheme://a/b.tar"]))


def test_object_stores_are_read_through_fsspec(built: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for path in [*built.glob("*.tar"), built / "manifest.json"]:
        memory.pipe(f"/bucket/set/{path.name}", path.read_bytes())
    assert same(list(stream("memory://bucket/set", BOTH, "slice", verify=True)), local(built, BOTH, "slice"))
    with pytest.raises(ShardwaveError, match="memory://bucket/none/manifest.json does not exist"):
        stream("memory://bucket/none", "train")
