"""Lists of classes in their published forms, and files that would take all memory."""

import os
import tracemalloc

import pytest

from tests.annotations.sets import write
from tests.refusals import refused
from vidtl.annotations.entries import read_table
from vidtl.annotations.text_files import MOST_CHARACTERS, read_class_list
from vidtl.errors import did_you_mean

EPIC = "id,key,instances,category\n0,take,\"['take', 'grab']\",get\n1,put,['put'],leave\n2,set,['set'],leave\n"


@pytest.mark.parametrize(
    ("name", "text", "names", "first"),
    [
        ("a.txt", "sit\nrun\n\n", ("sit", "run"), 0),
        ("a.txt", "\ufeffsit\r\nrun a lot\r\n", ("sit", "run a lot"), 0),
        ("classInd.txt", "1 ApplyLipstick\r\n2 Archery\r\n", ("ApplyLipstick", "Archery"), 1),
        ("a.txt", "c000 Holding some clothes\nc001 Opening a door\n", ("Holding some clothes", "Opening a door"), 0),
        ("a.txt", "3 point shot\n4 point shot\n", ("3 point shot", "4 point shot"), 0),
        ("a.txt", "1 sit\n", ("1 sit",), 0),
        ("a.txt", "level 0\nlevel 1\nlevel 2\n", ("level 0", "level 1", "level 2"), 0),
        ("a.txt", "3d printing\n4 point shot\nrun\n", ("3d printing", "4 point shot", "run"), 0),
        ("a.txt", "1 level 1\n2 level 2\n", ("level 1", "level 2"), 1),
        ("a.txt", "0 route 66\n1 route 1\n2 catch 22\n", ("route 66", "route 1", "catch 22"), 0),
        ("a.txt", "A001. eat\nA002. sit\n", ("eat", "sit"), 1),
        ("a.txt", '"sit"\n"""run"""\n', ("sit", "run"), 0),
        ("a.txt", '0, "sit"\n1, "run"\n', ("sit", "run"), 0),
        ("a.csv", "label_id,label_name,label_type\n2,a b,P\n1,c,P\n", ("c", "a b"), 1),
        ("a.csv", "id,name\n0,track 1\n1,rail 0\n", ("track 1", "rail 0"), 0),
        ("a.csv", 'id, name\n0, "sit, up"\n1, run\n', ("sit, up", "run"), 0),
        ("a.txt", "class_name\nsit\nrun\n", ("sit", "run"), 0),
        ("a.csv", EPIC, ("take", "put", "set"), 0),
        ("a.csv", ",name\n0,sit\n1,run\n", ("sit", "run"), 0),
        ("a.csv", 'x,label,classId\n5,"sit, up",2\n7,run,1\n', ("run", "sit, up"), 1),
        ("a.json", '{"Hold it": "1", "Fold it": "0"}', ("Fold it", "Hold it"), 0),
        ("a.json", '{"1": "b", "0": "a"}', ("a", "b"), 0),
        ("a.json", '{"\\"b\\"": 1, "\\"a\\"": 0}', ("a", "b"), 0),
        ("a.json", '["b", "a"]', ("b", "a"), 0),
        ("a.json", '["name", "1 a", "2 b"]', ("name", "1 a", "2 b"), 0),
    ],
)
def test_class_list_forms(tmp_path, name, text, names, first):
    write(tmp_path, {name: text})
    classes = read_class_list(tmp_path / name)
    assert (classes.names.names, next(iter(classes.by_number))) == (names, first)


@pytest.mark.parametrize("separator", [",", "\t", ";", ":", " ", ", ", " : "])
@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("number_first", [True, False])
def test_number_and_name_in_either_order(tmp_path, separator, header, number_first, caplog):
    rows = [("id", "name")] * header + [("2", "sit down"), ("1", "run"), ("4", "3d printing")]
    text = "".join(separator.join(row if number_first else row[::-1]) + "\n" for row in rows)
    write(tmp_path, {"a.csv": text})
    classes = read_class_list(tmp_path / "a.csv")
    assert classes.by_number == {1: "run", 2: "sit down", 4: "3d printing"}
    assert classes.names.names == ("run", "sit down", "3d printing")
    assert ["3 is missing" in message for message in caplog.messages] == [True]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "", "a.txt | empty"),
        ("a.txt", "sit\n\nrun\n", "a.txt | class 1"),
        ("a.txt", "sit\nrun\nsit\n", "a.txt | 'sit'"),
        ("a.txt", "c000 sit\nc001 run\nwalk\n", "a.txt:3 | 'walk' | 'c000 sit'"),
        ("a.txt", "sit down\n1 run\n2 walk\n", "a.txt:1 | 'sit down' | '1 run'"),
        ("a.txt", "A1 sit\nA2 run\nB3 walk\n", "a.txt:3 | 'B3 walk' | 'A1 sit'"),
        ("a.txt", "riding a bike 0\nclimb 0\nrun 1\n", "a.txt:2 | 'climb 0' | 'riding a bike 0'"),
        ("a.txt", "3 sit\n4 run\n", "a.txt:1 | '3 sit' | '4 run'"),
        ("a.txt", "0 track 1\n1 rail 0\n", "a.txt:1 | '0 track 1' | '1 rail 0'"),
        ("a.txt", "0 sit\n1 run\n2 sit\n", "a.txt | 'sit'"),
        ("a.csv", "7,0,sit\n8,1,run\n", "a.csv:1 | '7,0,sit' | '8,1,run'"),
        ("a.csv", "id,name\n0,sit, up\n1,run\n", "a.csv:2 | 3 fields | 2"),
        ("a.csv", "id,name\n0,sit\n1,sit\n2,sit\n", "a.csv:1 | 'id,name'"),
        ("a.csv", "Tag,Category\nsit,x\nrun,y\n", "a.csv:1 | 'Tag,Category'"),
        ("a.json", '{"0": "1", "1": "0"}', "a.json | object"),
        ("a.json", '{"a": 2, "b": 9}', "a.json, entry 1 | 'a: 2' | 'b: 9'"),
        ("a.json", '{"a": 0, "b": 1, "a": 2}', "a.json | 'a' | twice"),
        ("a.json", '{"a": 0, "b": "x"}', "a.json | object"),
        ("a.json", '{"a": 0,', "a.json | JSON"),
    ],
)
def test_class_list_mistakes(tmp_path, name, text, message):
    write(tmp_path, {name: text})
    with refused(*message.split(" | ")):
        read_class_list(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "line", "end", "parts"),
    [
        ("a.csv", "a,b\n1,2\n" + "x" * (MOST_CHARACTERS - 1) + "\n", 0, (":3", "1048576")),
        ("a.csv", "a,b\n", 1 << 30, (":2", "1048576")),  # a sparse file
        ("a.jsonl", "{}\n" + " " * MOST_CHARACTERS, 0, (":2", "1048576")),
        ("a.txt", "a,b\n", 1 << 30, ("1073741824", "16000000")),
        ("a.json", "[", 1 << 30, ("1073741824", "268435456")),
        ("a.json", "[" + "{}," * 5_000_000 + "{}]", 0, ("15000004", "10000000")),
        ("a.json", "{" + ",".join(['"a":0'] * 100_000) + "}", 0, ("'a'", "twice")),
    ],
)
def test_what_takes_too_much_memory_or_time_is_refused_at_once(tmp_path, name, line, end, parts):
    write(tmp_path, {name: line})
    os.truncate(tmp_path / name, end or len(line))
    tracemalloc.start()
    with refused(name, *parts):
        if name == "a.txt":
            read_class_list(tmp_path / name)
        else:
            list(read_table(tmp_path / name, {"a": "a"} if name == "a.csv" else {}, (), ";", []))
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()


def test_names_that_take_minutes_to_compare_are_not_compared():
    assert did_you_mean("a" * 200, ["a" * 201]).startswith("did you mean")
    assert did_you_mean("a" * 201, ["a" * 202]).startswith("allowed")
