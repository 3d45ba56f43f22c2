from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from capstan.deploy.local.datums import Repo, datum_name, datums, open_repo
from capstan.deploy.specs.read import Combination, Input, Pfs


def repo(name: str, *files: str) -> Repo:
    return Repo(name, Path("/nowhere"), sorted(files))


def pfs(repo: str, glob: str, join_on: str = "", outer: bool = False, group_by: str = "") -> Pfs:
    return Pfs(repo, repo, glob, join_on=join_on, outer_join=outer, group_by=group_by)


def paths(tree: Input, *repos: Repo) -> list[list[str]]:
    """The datums as lists of `repo:path`."""
    found = datums(tree, {each.name: each for each in repos})
    return [[f"{piece.input.repo}:{piece.path}" for piece in datum] for datum in found]


STORES = repo("stores", "S1.txt", "S2.txt", "S4.txt")
RETURNS = repo("returns", "A_S1.txt", "B_S1.txt", "C_S2.txt", "D_S0.txt")


def join(outer_stores: bool = False, outer_returns: bool = False) -> Combination:
    return Combination(
        "join",
        (
            pfs("stores", "/S(*).txt", "$1", outer_stores),
            pfs("returns", "/*_S(*).txt", "$1", outer_returns),
        ),
    )


MATCHED = [
    ["stores:/S1.txt", "returns:/A_S1.txt"],
    ["stores:/S1.txt", "returns:/B_S1.txt"],
    ["stores:/S2.txt", "returns:/C_S2.txt"],
]


def test_inner_join_pairs_what_matches() -> None:
    assert paths(join(), STORES, RETURNS) == MATCHED


def test_outer_joins_keep_what_has_no_match() -> None:
    assert sorted(paths(join(outer_returns=True), STORES, RETURNS)) == sorted(
        [*MATCHED, ["returns:/D_S0.txt"]]
    )
    both = paths(join(True, True), STORES, RETURNS)
    assert sorted(both) == sorted([*MATCHED, ["returns:/D_S0.txt"], ["stores:/S4.txt"]])


def test_join_of_one_repo_twice_as_consolidate_does() -> None:
    raw = repo("raw", "cc.tsv/0", "cc.tsv/1", "cc.tsv/2")
    features = repo("features", "cc.tsv/0.npy", "cc.tsv/0.parquet", "cc.tsv/2.parquet")
    tree = Combination(
        "join",
        (
            Pfs("raw", "raw", "/(*)/(*)", "$1/$2"),
            Pfs("features", "features", "/(*)/(*).parquet", "$1/$2"),
            Pfs("vectors", "features", "/(*)/(*).npy", "$1/$2", empty_files=True),
        ),
    )
    assert paths(tree, raw, features) == [
        ["raw:/cc.tsv/0", "features:/cc.tsv/0.parquet", "features:/cc.tsv/0.npy"]
    ]


def test_three_way_join_gives_an_outer_file_once() -> None:
    tree = Combination(
        "join",
        (pfs("a", "/(*).*", "$1", outer=True), pfs("b", "/(*).*", "$1"), pfs("c", "/(*).*", "$1")),
    )
    a, b, c = repo("a", "1.x"), repo("b", "1.x", "1.y"), repo("c")
    assert paths(tree, a, b, c) == [["a:/1.x"]]


def test_group_gathers_by_key() -> None:
    tree = Combination("group", (pfs("returns", "/*_S(*).txt", group_by="$1"),))
    assert paths(tree, RETURNS) == [
        ["returns:/D_S0.txt"],
        ["returns:/A_S1.txt", "returns:/B_S1.txt"],
        ["returns:/C_S2.txt"],
    ]


def test_cross_multiplies_and_a_folder_brings_all_below() -> None:
    model = repo(
        "model", "curves.json", "saved/model.keras", "saved/vocabulary/words.txt", "saved2"
    )
    tree = Combination("cross", (pfs("model", "/saved"), pfs("inpredict", "/*")))
    repos = {"model": model, "inpredict": repo("inpredict", "a.png", "b.png")}
    found = datums(tree, repos)
    assert [datum_name(datum) for datum in found] == [
        "model:/saved + inpredict:/a.png",
        "model:/saved + inpredict:/b.png",
    ]
    assert found[0][0].files == ["saved/model.keras", "saved/vocabulary/words.txt"]


def test_union_gives_each_datum_once() -> None:
    tree = Combination("union", (pfs("stores", "/*"), pfs("stores", "/S1*")))
    assert len(paths(tree, STORES)) == 3


def test_nested_cross_of_a_union() -> None:
    union = Combination("union", (pfs("a", "/*"), pfs("b", "/*")))
    tree = Combination("cross", (union, pfs("c", "/*")))
    assert paths(tree, repo("a", "1"), repo("b", "2"), repo("c", "3")) == [
        ["a:/1", "c:/3"],
        ["b:/2", "c:/3"],
    ]


def test_whole_repo_and_empty_repo() -> None:
    assert datums(pfs("stores", "/"), {"stores": STORES})[0][0].files == STORES.files
    assert paths(pfs("none", "/"), repo("none")) == []


def test_open_repo_passes_over_hidden_files(tmp_path: Path) -> None:
    for name in ("b/2", "a", ".hidden", ".git/x", "b/.partial"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert open_repo("r", tmp_path).files == ["a", "b/2"]


names = st.from_regex(r"[a-z0-9.+-]{1,3}(/[a-z0-9.+-]{1,3}){0,2}", fullmatch=True)


@given(st.sets(names))
def test_every_file_is_in_the_folders_above_it(files: set[str]) -> None:
    whole = repo("r", *files)
    for folder in whole.folders:
        inside = folder.rstrip("/") + "/"
        expected = [name for name in sorted(files) if f"/{name}".startswith(inside)]
        assert whole.below(folder) == expected


@given(st.sets(names), st.sets(names))
def test_join_is_the_intersection(left: set[str], right: set[str]) -> None:
    tree = Combination("join", (pfs("l", "/(**)", "$1"), pfs("r", "/(**)", "$1")))
    found = paths(tree, repo("l", *left), repo("r", *right))
    files = [pair for pair in found if pair[0][3:] in left and pair[1][3:] in right]
    assert [pair[0][3:] for pair in files] == sorted(left & right)
