"""Lists of classes in their published forms."""

import pytest

from tests.annotations.sets import write
from tests.refusals import refused
from vidtl.annotations.text_files import read_class_list


@pytest.mark.parametrize(
    ("name", "text", "names", "first"),
    [
        ("a.txt", "sit\nrun\n\n", ("sit", "run"), 0),
        ("a.txt", "\ufeffsit\r\nrun a lot\r\n", ("sit", "run a lot"), 0),
        ("classInd.txt", "1 ApplyLipstick\r\n2 Archery\r\n", ("ApplyLipstick", "Archery"), 1),
        ("a.txt", "0 sit\n1\trun\n", ("sit", "run"), 0),
        ("a.txt", "c000 Holding some clothes\nc001 Opening a door\n", ("Holding some clothes", "Opening a door"), 0),
        ("a.txt", "3 point shot\n4 point shot\n", ("3 point shot", "4 point shot"), 0),
        ("a.txt", "1 sit\n", ("1 sit",), 0),
        ("a.json", '{"Hold it": "1", "Fold it": "0"}', ("Fold it", "Hold it"), 0),
        ("a.json", '{"b": 1, "a": 2}', ("b", "a"), 1),
        ("a.json", '["b", "a"]', ("b", "a"), 0),
    ],
)
def test_class_list_forms(tmp_path, name, text, names, first):
    write(tmp_path, {name: text})
    classes = read_class_list(tmp_path / name)
    assert (classes.names.names, classes.first_number) == (names, first)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "", "a.txt | empty"),
        ("a.txt", "sit\n\nrun\n", "a.txt | class 1"),
        ("a.txt", "sit\nrun\nsit\n", "a.txt | 'sit'"),
        ("a.txt", "1 sit\n2 run\n4 walk\n", "a.txt:3 | '4 walk' | '3 '"),
        ("a.txt", "c000 sit\nc001 run\nwalk\n", "a.txt:3 | 'walk' | 'c002 '"),
        ("a.json", '{"a": 0, "b": 2}', "a.json | 0 to 1"),
        ("a.json", '{"a": 0, "b": "x"}', "a.json | object"),
        ("a.json", '{"a": 0,', "a.json | JSON"),
    ],
)
def test_class_list_mistakes(tmp_path, name, text, message):
    write(tmp_path, {name: text})
    with refused(*message.split(" | ")):
        read_class_list(tmp_path / name)
