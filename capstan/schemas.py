"""The records of the pipelines as columns of parquet tables.

Apart from `records.py`: decoders need those and not PyArrow, which is 25 MB and a quarter second.
"""

import pyarrow as pa

OUTCOME_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("url", pa.string()),
        ("caption", pa.string()),
        ("status", pa.string()),  # `success` or `failed`
        ("reason", pa.string()),
        ("http_status", pa.int32()),
        ("attempts", pa.int32()),
        ("bytes", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("original_width", pa.int32()),
        ("original_height", pa.int32()),
        ("sha256", pa.string()),
        ("final_url", pa.string()),
    ]
)
FEATURE_SCHEMA = pa.schema(
    [("key", pa.string()), ("sha256", pa.string()), ("row", pa.int32()), ("reason", pa.string())]
)
EXAMPLE_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("sha256", pa.string()),  # of the picture: the same picture may carry several captions
        ("row", pa.int32()),  # index into the shard's array
        ("caption", pa.string()),
        ("cleaned", pa.string()),  # words divided by single spaces
        ("split", pa.string()),  # `train`, `validation` or `test`
    ]
)
