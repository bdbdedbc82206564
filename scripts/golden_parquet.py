"""Writes small parquet files with pyarrow, polars and duckdb, for the unit test of src/rows/columnar.rs.

    pip install pyarrow==26.0.1 polars==2.1.0 duckdb==2.0.1
    python scripts/golden_parquet.py [OUT]                 # OUT: tests/golden/parquet

expected.json holds for each file its rows, as the library that wrote it reads them and pyarrow confirms; or the name of
a file before it that holds the same; or, of a file that we refuse, a part of the message: {"refused": "..."}. JSON has
no word for some values: decimals, dates and times are texts (except times in nanoseconds, which our reader shows as the
numbers that they are stored as), a map is an object, and NaN is null, as in pandas.
"""

import datetime
import decimal
import json
import math
import sys
import tempfile
import uuid
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden" / "parquet"

FLAT = [
    {"text": "Make 24 of 3, 8.", "whole": 24, "float": 0.1, "truth": True},
    {"text": "", "whole": -1, "float": -1.5, "truth": False},
    {"text": None, "whole": None, "float": None, "truth": None},
    {"text": 'Zürich, 東京 🙂\n"a"\t\\\u0000', "whole": 2**63 - 1, "float": 1e300, "truth": None},
    {"text": "It is long, and longer. " * 40, "whole": -(2**63), "float": 5e-324, "truth": True},
    {"text": "", "whole": 0, "float": 24.0, "truth": True},
]

COUNTDOWN = [
    {"nums": [3, 8], "target": 24},
    {"nums": [], "target": 0},
    {"nums": None, "target": 7},
    {"nums": [1, None, 2], "target": None},
    {"nums": [95, 21, 3, 8], "target": 98},
]


def verl(prompt, reward_model, extra_info):
    return {"data_source": "countdown", "prompt": prompt, "reward_model": reward_model, "extra_info": extra_info}


# Each level is there, empty and null.
VERL = [
    verl(
        [{"role": "system", "content": ""}, {"role": "user", "content": "Make 24 of 3 und 8, schön."}],
        {"style": "rule", "ground_truth": {"target": 24, "numbers": [3, 8]}},
        {"split": "train", "index": 0},
    ),
    verl([], {"style": "rule", "ground_truth": {"target": 7, "numbers": []}}, {"split": "", "index": 1}),
    verl(None, None, None),
    verl([None, {"role": None, "content": "a"}], {"style": None, "ground_truth": None}, {"split": None, "index": None}),
    verl([{"role": "user", "content": None}], {"style": "", "ground_truth": {"target": None, "numbers": None}}, None),
    verl([None], {"style": "rule", "ground_truth": {"target": 1, "numbers": [None, 1]}}, {"split": "test", "index": 2}),
]

# Lists in lists, and lists that come first in groups, by which readers tell where a row ends.
DEEP = [
    {"lists": [[[1], []], [], None, [None, [2, None]]], "groups": [{"inner": [1, 2], "n": 1}, {"inner": [], "n": 2}]},
    {"lists": [], "groups": [None, {"inner": None, "n": None}, {"inner": [None], "n": 3}]},
    {"lists": None, "groups": None},
    {"lists": [[[3]]], "groups": []},
    {"lists": [None], "groups": [{"inner": [4, 5, 6], "n": 4}]},
]

# Longer than a block of delta encodings has values, and than the reader takes at once.
MANY = [{"whole": (i * i) % 97 - 9, "text": f"row {i % 40}", "float": i / 4, "truth": i % 3 == 0} for i in range(200)]
LISTS = [{"n": None if i % 7 == 6 else [i % 10] * (i % 3)} for i in range(1100)]

FLAT_TYPES = {"text": pa.string(), "whole": pa.int64(), "float": pa.float64(), "truth": pa.bool_()}
COUNTDOWN_TYPES = {"nums": pa.list_(pa.int64()), "target": pa.int64()}
VERL_TYPES = {
    "data_source": pa.string(),
    "prompt": pa.list_(pa.struct({"role": pa.string(), "content": pa.string()})),
    "reward_model": pa.struct(
        {"style": pa.string(), "ground_truth": pa.struct({"target": pa.int64(), "numbers": pa.list_(pa.int64())})}
    ),
    "extra_info": pa.struct({"split": pa.string(), "index": pa.int64()}),
}
DEEP_TYPES = {
    "lists": pa.list_(pa.list_(pa.list_(pa.int64()))),
    "groups": pa.list_(pa.struct({"inner": pa.list_(pa.int64()), "n": pa.int64()})),
}

PYARROW_TYPES = {
    "int8": (pa.int8(), -128),
    "int16": (pa.int16(), -32768),
    "int32": (pa.int32(), -(2**31)),
    "uint8": (pa.uint8(), 255),
    "uint16": (pa.uint16(), 65535),
    "uint32": (pa.uint32(), 2**32 - 1),
    "uint64": (pa.uint64(), 2**64 - 1),
    "float16": (pa.float16(), 0.5),
    "float32": (pa.float32(), 0.25),
    "nan": (pa.float64(), math.nan),
    "null": (pa.null(), None),
    "large": (pa.large_string(), "é"),
    "view": (pa.string_view(), "a text of more than twelve bytes"),
    "dictionary": (pa.dictionary(pa.int32(), pa.string()), "red"),
    "bytes": (pa.binary(), "é".encode()),
    "fixed": (pa.list_(pa.int64(), 2), [1, 2]),
    "list_view": (pa.list_view(pa.int64()), [3]),
    "large_list": (pa.large_list(pa.string()), ["a", None, ""]),
    "map": (pa.map_(pa.string(), pa.list_(pa.int64())), [("a", [1, 2]), ("b", None), ("c", [])]),
    "numbers": (pa.map_(pa.int64(), pa.string()), [(3, "c")]),
}

DAY = datetime.date(2024, 2, 29)
MOMENT = datetime.datetime(2024, 2, 29, 13, 5, 7, 250_000)
NANOSECONDS = 1_709_211_907_250_000_000


def plain(value):
    """A value that a library gives, as in JSON."""
    match value:
        case dict():
            return {str(key): plain(inner) for key, inner in value.items()}
        case [tuple(), *_]:
            return plain(dict(value))
        case list():
            return [plain(inner) for inner in value]
        case bytes():
            return value.decode()
        case float() if math.isnan(value):
            return None
        case decimal.Decimal():
            return str(value)
        case datetime.datetime():
            return f"{value:%Y-%m-%d %H:%M:%S.%f} +00:00"
        case datetime.date():
            return f"{value:%Y-%m-%d}"
        case _:
            return value


class Files:
    """The files that are written, and what they are expected to hold."""

    def __init__(self, folder):
        self.folder = folder
        self.expected = {}

    def path(self, name):
        return self.folder / f"{name}.parquet"

    def holds(self, name, rows, given):
        """What the library reads is what it was given, and pyarrow agrees."""
        rows, other = plain(rows), plain(pq.ParquetFile(self.path(name)).read().to_pylist())
        assert rows == plain(given), (name, rows, given)
        assert rows == other, (name, rows, other)
        self.expected[f"{name}.parquet"] = rows

    def refused(self, name, message):
        self.expected[f"{name}.parquet"] = {"refused": message}

    def arrow(self, name, rows, types, **options):
        table = pa.Table.from_pylist(rows, schema=pa.schema(types))
        pq.write_table(table, self.path(name), **options)
        self.holds(name, pq.ParquetFile(self.path(name)).read().to_pylist(), rows)

    def polars(self, name, rows, schema, **options):
        pl.DataFrame(rows, schema=schema, orient="row").write_parquet(self.path(name), **options)
        self.holds(name, pl.read_parquet(self.path(name)).to_dicts(), rows)

    def duckdb(self, name, query, given, options=""):
        with duckdb.connect() as connection:
            connection.execute("SET threads = 1")
            connection.execute(f"COPY ({query}) TO '{self.path(name)}' (FORMAT parquet {options})")
            if given is not None:
                found = connection.execute(f"SELECT * FROM read_parquet('{self.path(name)}')")
                names = [column[0] for column in found.description]
                self.holds(name, [dict(zip(names, row)) for row in found.fetchall()], given)


def by_pyarrow(files):
    for compression in ("none", "snappy", "gzip", "zstd", "lz4", "brotli"):
        files.arrow(f"pyarrow_flat_{compression}", FLAT, FLAT_TYPES, compression=compression)
    second = {"data_page_version": "2.0"}
    files.arrow("pyarrow_flat_v2", FLAT, FLAT_TYPES, compression="zstd", use_dictionary=False, **second)
    files.arrow("pyarrow_flat_groups", FLAT, FLAT_TYPES, row_group_size=2, write_page_index=True)
    files.arrow("pyarrow_flat_checksums", FLAT, FLAT_TYPES, write_page_checksum=True, store_schema=False)
    for name, rows, types in [
        ("countdown", COUNTDOWN, COUNTDOWN_TYPES),
        ("verl", VERL, VERL_TYPES),
        ("deep", DEEP, DEEP_TYPES),
    ]:
        files.arrow(f"pyarrow_{name}", rows, types)
        files.arrow(f"pyarrow_{name}_v2", rows, types, use_dictionary=False, row_group_size=2, **second)
    # Names and kinds of old files.
    files.arrow("pyarrow_verl_old", VERL, VERL_TYPES, version="1.0", use_compliant_nested_type=False)
    pages = {"data_page_size": 256, "write_batch_size": 50}
    files.arrow("pyarrow_pages", LISTS, {"n": pa.list_(pa.int64())}, **pages)
    files.arrow("pyarrow_pages_v2", LISTS, {"n": pa.list_(pa.int64())}, use_dictionary=False, **pages, **second)
    encodings = {
        "whole": "DELTA_BINARY_PACKED",
        "text": "DELTA_BYTE_ARRAY",
        "float": "BYTE_STREAM_SPLIT",
        "truth": "RLE",
    }
    files.arrow("pyarrow_delta", MANY, FLAT_TYPES, use_dictionary=False, column_encoding=encodings, **second)
    encodings = {"text": "DELTA_LENGTH_BYTE_ARRAY", "whole": "BYTE_STREAM_SPLIT", "float": "PLAIN", "truth": "PLAIN"}
    files.arrow("pyarrow_delta_flat", FLAT, FLAT_TYPES, use_dictionary=False, column_encoding=encodings)
    required = [pa.field(name, kind, nullable=False) for name, kind in FLAT_TYPES.items()]
    whole = [row for row in FLAT if None not in row.values()]
    files.arrow("pyarrow_required", whole, required)
    types = {name: kind for name, (kind, _) in PYARROW_TYPES.items()}
    row = {name: value for name, (_, value) in PYARROW_TYPES.items()}
    files.arrow("pyarrow_types", [row, dict.fromkeys(types)], types)
    files.arrow("pyarrow_empty", [], VERL_TYPES)
    pyarrow_dates(files)
    pyarrow_refused(files)


def pyarrow_dates(files):
    types = {
        "date": pa.date32(),
        "micro": pa.timestamp("us"),
        "milli": pa.timestamp("ms", tz="UTC"),
        "nano": pa.timestamp("ns"),
        "clock": pa.time32("ms"),
        "fine_clock": pa.time64("us"),
        "price": pa.decimal128(5, 2),
        "part": pa.decimal128(2, 2),
        "count": pa.decimal128(20, 0),
    }
    price, part, count = decimal.Decimal("-1.50"), decimal.Decimal("0.05"), decimal.Decimal("24")
    values = [DAY, MOMENT, MOMENT, NANOSECONDS, MOMENT.time(), MOMENT.time(), price, part, count]
    arrays = [pa.array([value, None], kind) for value, kind in zip(values, types.values())]
    table = pa.table(arrays, schema=pa.schema(types))
    pq.write_table(table, files.path("pyarrow_dates"))
    row = {
        "date": "2024-02-29",
        "micro": "2024-02-29 13:05:07.250000 +00:00",
        "milli": "2024-02-29 13:05:07.250 +00:00",
        "nano": NANOSECONDS,
        "clock": "13:05:07.250",
        "fine_clock": "13:05:07.250000",
        "price": "-1.50",
        "part": "0.05",
        "count": "24",
    }
    files.expected["pyarrow_dates.parquet"] = [row, dict.fromkeys(row)]


def pyarrow_refused(files):
    def write(name, array, message, **options):
        pq.write_table(pa.table({"a": array}), files.path(name), **options)
        files.refused(name, message)

    write("pyarrow_bytes", pa.array([b"a", b"\xff\x00"]), "row 2: column `a` has bytes that are not text in UTF-8")
    write("pyarrow_infinite", pa.array([1.5, -math.inf]), "row 2: column `a` has a number that is infinite")
    twice = pa.array([[("k", 1), ("k", 2)]], pa.map_(pa.string(), pa.int64()))
    write("pyarrow_keys", twice, "row 1: column `a` has the key `k` twice")
    # Smaller by more than any text is.
    write(
        "pyarrow_squeezed",
        pa.array(["x" * (17 << 20)]),
        "more than 1024 times as large is not believed",
        compression="zstd",
        write_statistics=False,
        use_dictionary=False,
    )
    table = pa.table([pa.array([1]), pa.array([2])], names=["a", "a"])
    pq.write_table(table, files.path("pyarrow_columns"))
    files.refused("pyarrow_columns", "it has the column `a` twice")


def by_polars(files):
    flat = {"text": pl.String, "whole": pl.Int64, "float": pl.Float64, "truth": pl.Boolean}
    message = pl.Struct({"role": pl.String, "content": pl.String})
    truth = pl.Struct({"target": pl.Int64, "numbers": pl.List(pl.Int64)})
    nested = {
        "data_source": pl.String,
        "prompt": pl.List(message),
        "reward_model": pl.Struct({"style": pl.String, "ground_truth": truth}),
        "extra_info": pl.Struct({"split": pl.String, "index": pl.Int64}),
    }
    deep = {
        "lists": pl.List(pl.List(pl.List(pl.Int64))),
        "groups": pl.List(pl.Struct({"inner": pl.List(pl.Int64), "n": pl.Int64})),
    }
    files.polars("polars_flat", FLAT, flat)
    files.polars("polars_flat_lz4", FLAT, flat, compression="lz4", row_group_size=2)
    files.polars("polars_countdown", COUNTDOWN, {"nums": pl.List(pl.Int64), "target": pl.Int64})
    files.polars("polars_verl", VERL, nested)
    files.polars("polars_deep", DEEP, deep)
    files.polars("polars_many", MANY, {name: flat[name] for name in MANY[0]})
    files.polars("polars_empty", [], nested)
    nothing = [{"text": None, "list": [], "nulls": None}, {"text": None, "list": [], "nulls": [None]}]
    files.polars("polars_nulls", nothing, {"text": pl.String, "list": pl.List(pl.String), "nulls": pl.List(pl.Null)})
    types = {
        "int8": (pl.Int8, -128),
        "uint64": (pl.UInt64, 2**64 - 1),
        "float32": (pl.Float32, 0.25),
        "nan": (pl.Float64, math.nan),
        "null": (pl.Null, None),
        "category": (pl.Categorical, "red"),
        "enum": (pl.Enum(["red", "blue"]), "blue"),
        "bytes": (pl.Binary, "é".encode()),
        "array": (pl.Array(pl.Int64, 2), [1, 2]),
        "date": (pl.Date, DAY),
        "moment": (pl.Datetime("us"), MOMENT),
        "price": (pl.Decimal(5, 2), decimal.Decimal("-1.50")),
    }
    row = {name: value for name, (_, value) in types.items()}
    files.polars("polars_types", [row, dict.fromkeys(row)], {name: kind for name, (kind, _) in types.items()})


def by_duckdb(files):
    def from_json(rows, columns):
        text = json.dumps(rows, ensure_ascii=False)
        source = Path(scratch) / "rows.json"
        source.write_text(text)
        kinds = ", ".join(f"'{name}': '{kind}'" for name, kind in columns.items())
        return f"SELECT * FROM read_json('{source}', format = 'array', columns = {{{kinds}}})"

    flat = {"text": "VARCHAR", "whole": "BIGINT", "float": "DOUBLE", "truth": "BOOLEAN"}
    nested = {
        "data_source": "VARCHAR",
        "prompt": "STRUCT(role VARCHAR, content VARCHAR)[]",
        "reward_model": "STRUCT(style VARCHAR, ground_truth STRUCT(target BIGINT, numbers BIGINT[]))",
        "extra_info": 'STRUCT(split VARCHAR, "index" BIGINT)',
    }
    deep = {"lists": "BIGINT[][][]", "groups": 'STRUCT("inner" BIGINT[], n BIGINT)[]'}
    with tempfile.TemporaryDirectory() as scratch:
        for suffix, options in [("", ""), ("_v2", ", PARQUET_VERSION V2, COMPRESSION zstd")]:
            for name, rows, columns in [
                ("flat", FLAT, flat),
                ("many", MANY, {name: flat[name] for name in MANY[0]}),
                ("countdown", COUNTDOWN, {"nums": "BIGINT[]", "target": "BIGINT"}),
                ("verl", VERL, nested),
                ("deep", DEEP, deep),
            ]:
                files.duckdb(f"duckdb_{name}{suffix}", from_json(rows, columns), rows, options)
        files.duckdb("duckdb_empty", from_json(VERL, nested) + " LIMIT 0", [])
    row = {
        "tiny": ("(-128)::TINYINT", -128),
        "large": ("18446744073709551615::UBIGINT", 2**64 - 1),
        "huge": ("24::HUGEINT", 24.0),
        "float": ("0.25::FLOAT", 0.25),
        "price": ("1.50", decimal.Decimal("1.50")),
        "part": ("-0.05::DECIMAL(2, 2)", decimal.Decimal("-0.05")),
        "nan": ("'nan'::DOUBLE", math.nan),
        "bytes": ("'abc'::BLOB", b"abc"),
        "colour": ("'red'::ENUM ('red', 'blue')", "red"),
        "json": ("""'{"target": 3}'::JSON""", '{"target": 3}'),
        "map": ("MAP {'a': [1, 2]::BIGINT[], 'b': NULL}", {"a": [1, 2], "b": None}),
        "array": ("[1, 2]::BIGINT[2]", [1, 2]),
        "date": ("DATE '2024-02-29'", DAY),
        "moment": ("TIMESTAMP '2024-02-29 13:05:07.25'", MOMENT),
    }
    query = "SELECT " + ", ".join(f'{value} AS "{name}"' for name, (value, _) in row.items())
    files.duckdb("duckdb_types", query, [{name: value for name, (_, value) in row.items()}])
    nothing = {"null": None, "text": None, "list": []}
    query = 'SELECT NULL AS "null", NULL::VARCHAR AS "text", []::VARCHAR[] AS "list" FROM range(2)'
    files.duckdb("duckdb_nulls", query, [nothing] * 2)
    unread = "column `a` holds intervals or variants, which are not read"
    for name, value, message in [
        ("interval", "INTERVAL 3 MONTH", unread),
        ("variant", "3::VARIANT", unread),
        ("uuid", f"'{uuid.UUID(int=2**128 - 1)}'::UUID", "row 1: column `a` has bytes that are not text in UTF-8"),
        ("infinite_date", "'infinity'::DATE", "row 1: column `a` has a date that is out of range"),
        ("infinite_time", "'infinity'::TIMESTAMP", "row 1: column `a` has a date that is out of range"),
    ]:
        files.duckdb(f"duckdb_{name}", f"SELECT {value} AS a", None)
        files.refused(f"duckdb_{name}", message)


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else GOLDEN
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.parquet"):
        old.unlink()
    files = Files(folder)
    by_pyarrow(files)
    by_polars(files)
    by_duckdb(files)
    lines, first = [], {}
    for name, rows in files.expected.items():
        text = json.dumps(rows, ensure_ascii=False)
        lines.append(f"{json.dumps(name)}: {json.dumps(first[text]) if text in first else text}")
        first.setdefault(text, name)
    (folder / "expected.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{len(lines)} files, {size} bytes")


if __name__ == "__main__":
    main()
