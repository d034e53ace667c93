"""What all clients of the protocol ask: rows of every type, and what comes of them."""
import numpy as np

ROWS = {
    "BOOL": (np.bool_, [[True, False, True], [False, False, True]]),
    "UINT8": (np.uint8, [[1, 2, 255], [0, 7, 3]]),
    "UINT16": (np.uint16, [[1, 2, 65535], [0, 7, 3]]),
    "UINT32": (np.uint32, [[1, 2, 2**32 - 1], [0, 7, 3]]),
    "UINT64": (np.uint64, [[1, 2, 2**40], [0, 7, 3]]),
    "INT8": (np.int8, [[-1, 2, -128], [0, 7, 127]]),
    "INT16": (np.int16, [[-1, 2, -32768], [0, 7, 3]]),
    "INT32": (np.int32, [[-1, 2, -(2**31)], [0, 7, 3]]),
    "INT64": (np.int64, [[-1, 2, -(2**40)], [0, 7, 3]]),
    "FP16": (np.float16, [[0.333, 2, -4.5], [0, 7, 3]]),
    "FP32": (np.float32, [[0.1, 2.7, -4.5], [1e-30, 7, 3]]),
    "FP64": (np.float64, [[0.1, 2.7, -4.5], [1e-300, 7, 3]]),
}
# The category of each row, and the score of `fraud` with amount 1.5 and age 7.25.
COUNTRIES = ["pt", "de", "fr", "nowhere"]


def rows(datatype, batch):
    """That many rows of a type, as numpy has them."""
    kind, given = ROWS[datatype]
    return np.array([given[i % 2] for i in range(batch)], dtype=kind)


def wanted(values):
    """What the model `sum` says of them, in doubles."""
    numbers = values.astype(np.float64)
    # In the order in which the model adds.
    return ((0.5 + numbers[:, 0] * 1.0) + numbers[:, 1] * 10.0) + numbers[:, 2] * 100.0


def check(what, seen, expected):
    assert seen == expected, f"{what}: {seen!r}, not {expected!r}"


def same(what, seen, expected):
    """Bit for bit."""
    seen, expected = np.asarray(seen, dtype=np.float64).ravel(), np.asarray(expected, dtype=np.float64).ravel()
    assert seen.tobytes() == expected.tobytes(), f"{what}: {seen}, not {expected}"


def refused(what, error, status, text, ask):
    """Asks for what can't be had: the client's own exception, its status, and words that say why."""
    try:
        answer = ask()
    except error as seen:
        code = seen.status() if hasattr(seen, "status") else None
        assert status is None or status in str(code), f"{what}: {code}, not {status}"
        assert text in str(seen), f"{what}: {seen}"
        return
    raise AssertionError(f"{what}: {answer!r}")
