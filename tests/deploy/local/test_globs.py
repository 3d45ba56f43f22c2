import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capstan.deploy.local.globs import compile_glob
from capstan.errors import SettingError


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        # Pachyderm's own documentation and server tests
        ("/", "/", True),
        ("/", "/a", False),
        ("/*", "/a", True),
        ("/*", "/", False),
        ("/*", "/a/b", False),
        ("/*/*", "/cc.tsv/0000000000000000", True),
        ("/*/*", "/cc.tsv", False),
        ("/*/*.tar", "/cc.tsv/0.tar", True),
        ("/*/*.tar", "/cc.tsv/0.parquet", False),
        ("/**", "/a/b/c", True),
        ("/**.2", "/dir1/file1.2", True),
        ("/**.2", "/dir1/file1.1", False),
        ("/**file1?", "/dir2/dir3/file12", True),
        ("/**file1?", "/dir2/dir3/file1", False),
        ("/dir?", "/dir1", True),
        ("/1*", "/17", True),
        ("/1*", "/21", False),
        ("/STOREID(*).txt", "/STOREID4.txt", True),
        ("/*_STOREID(*).txt", "/ORDERW080231_STOREID5.txt", True),
        ("/(T|R)/*", "/T/x", True),
        ("/(T|R)/*", "/S/x", False),
        # ohmyglob's tests
        ("{abc,abcd}a", "abcda", True),
        ("{*,**}{a,b}", "ac", False),
        ("{*.google.*,yandex.*}", "www.yandex.com", False),
        ("/{rate,[0-9][0-9][0-9]}*", "/rate", True),
        ("[a-z]", "C", False),
        ("[!a]*", "this is a test3", True),
        ("[[:alpha:]]", "C", True),
        ("[[:^alpha:]]", "C", False),
        ("[![:graph:]]", "!", False),
        (r"\*", "*", True),
        (r"\*", "a", False),
        ("**is**a***test*", "this is a test", True),
        ("*.+(b|d)", "d.a.d", True),
        ("*.+(b|d)", "a.", False),
        ("@(b+(c)d|e*(f)g?|?(h)i@(j|k))", "effgz", True),
        ("!(a)", "", True),
        ("!(a)", "a", False),
        ("!(a)", "aa", True),
        ("!(a)b", "ab", False),
        ("!(a)b", "cb", True),
    ],
)
def test_matches_what_the_server_matches(pattern: str, path: str, matches: bool) -> None:
    assert compile_glob(pattern).match(path) is matches


@pytest.mark.parametrize(
    ("pattern", "path", "template", "result"),
    [
        ("/(*)/(*)", "/cc.tsv/0000", "$1/$2", "cc.tsv/0000"),
        ("/(*)/(*).parquet", "/cc.tsv/0000.parquet", "$1/$2", "cc.tsv/0000"),
        ("name=(*)", "name=adele", "${1}1", "adele1"),
        ("name=(*)", "name=adele", "$$1", "$1"),
        ("name=(*)", "other", "$1", ""),
        ("name=(*)/(*)", "name=a/b", "$0", "name=a/b"),
        ("name=(*)", "name=a", "[$2]", "[]"),
        ("test/a*(a|b)/*(*).go", "test/aaaa/x.go", "$1 $2", "aaa x"),
        ("test*(/?(+(a|b)/*.go))", "test/a/x.go", "$1 $2 $3", "/a/x.go a/x.go a"),
        ("(((((((((??)))))))))*(a|b)", "xfbaaaababbbabaa", "$10", "baaaababbbabaa"),
    ],
)
def test_captures_replace_references(pattern: str, path: str, template: str, result: str) -> None:
    assert compile_glob(pattern).replace(path, template) == result


@pytest.mark.parametrize("pattern", ["/(a", "/{a,b", "/[a", "/[]", "/[z-a]"])
def test_brackets_that_do_not_pair_up_are_one_line(pattern: str) -> None:
    with pytest.raises(SettingError, match=re.escape(pattern)):
        compile_glob(pattern)


names = st.text(string.ascii_letters + string.digits + "._-", min_size=1, max_size=6)


@given(st.lists(names, min_size=1, max_size=4))
def test_stars_match_by_depth(parts: list[str]) -> None:
    path = "/" + "/".join(parts)
    for depth in range(1, 6):
        assert compile_glob("/*" * depth).match(path) is (depth == len(parts))
    assert compile_glob("/**").match(path)
    captured = compile_glob("/(*)" * len(parts))
    template = "/".join(f"${number + 1}" for number in range(len(parts)))
    assert captured.replace(path, template) == "/".join(parts)


@given(st.text(st.characters(exclude_characters="\n", codec="utf-8"), max_size=12))
def test_quoted_text_matches_itself_only(text: str) -> None:
    quoted = re.sub(r"[][*?\\{}()@+^!]", r"\\\g<0>", text)
    assert compile_glob("/" + quoted).match("/" + text)
    assert not compile_glob("/" + quoted).match("/" + text + "x")
