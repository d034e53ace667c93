"""Trains LightGBM models of 500 trees with 31 leaves in some shapes, measures who else predicts with them on one thread,
and leaves model, rows and raw scores in a folder. Prints one JSON object a line. Run by `headwater-bench -- trees`.

usage: trees.py FOLDER
"""
import json
import os
import sys
import time

import lightgbm
import numpy as np

TREES, LEAVES, ROWS, SINGLE = 500, 31, 20_000, 3_000


def data(shape):
    random = np.random.RandomState(7)
    rows, columns = 2 * ROWS + 20_000, 28 if shape == 'numbers' else 50
    x = random.randn(rows, columns)
    categorical = []
    if shape == 'gaps':
        x[random.rand(rows, columns) < 0.05] = np.nan
    if shape == 'categories':
        categorical = [0, 1, 2]
        x[:, 0], x[:, 1], x[:, 2] = (random.randint(0, n, rows) for n in (12, 60, 300))
    known = np.nan_to_num(x)
    y = known[:, 0] * known[:, 3] % 3 + np.sin(known[:, 4] * 2) + (known[:, 5] > 0) * known[:, 6] + known[:, 8:16].sum(1) * 0.3
    return x, (y + random.randn(rows) * 0.5 > np.median(y)).astype(int), categorical


def measure(shape, peer, predict, rows):
    """Rows of a batch in a second of the processor's time; microseconds of one row by itself."""
    bulk = []
    for _ in range(5):
        began = time.process_time()
        predict(rows)
        bulk.append(len(rows) / (time.process_time() - began))
    single = []
    for index in range(SINGLE):
        row = rows[index:index + 1]
        began = time.perf_counter()
        predict(row)
        single.append(time.perf_counter() - began)
    print(json.dumps({'shape': shape, 'peer': peer, 'bulk': float(np.median(bulk)), 'single_us': float(np.median(single) * 1e6)}), flush=True)


def onnx(booster, columns):
    """The same model in ONNX Runtime, where it is installed: as floats, so not the same answers."""
    try:
        import onnxmltools
        import onnxruntime
        from onnxmltools.convert.common.data_types import FloatTensorType
        model = onnxmltools.convert_lightgbm(booster, initial_types=[('x', FloatTensorType([None, columns]))], zipmap=False)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    except Exception as problem:  # Not installed, or it can't convert this model: LightGBM alone is compared.
        print(f'no ONNX Runtime: {problem}', file=sys.stderr)
        return None, None
    return f'ONNX Runtime {onnxruntime.__version__}', lambda rows: session.run(None, {'x': rows})


def main():
    for shape in ('numbers', 'gaps', 'categories'):
        x, y, categorical = data(shape)
        train = lightgbm.Dataset(x[ROWS:], y[ROWS:], categorical_feature=categorical)
        booster = lightgbm.train({'objective': 'binary', 'num_leaves': LEAVES, 'verbose': -1, 'num_threads': 2}, train, num_boost_round=TREES)
        rows = np.ascontiguousarray(x[:ROWS])
        folder = os.path.join(sys.argv[1], shape)
        os.makedirs(folder, exist_ok=True)
        booster.save_model(os.path.join(folder, 'model.txt'))
        rows.astype('<f8').tofile(os.path.join(folder, 'rows.f64'))
        booster.predict(rows, raw_score=True).astype('<f8').tofile(os.path.join(folder, 'scores.f64'))
        measure(shape, f'LightGBM {lightgbm.__version__}', lambda r: booster.predict(r, raw_score=True, num_threads=1), rows)
        peer, predict = onnx(booster, rows.shape[1])
        if peer and not categorical:
            measure(shape, peer, predict, rows.astype(np.float32))


if __name__ == '__main__':
    main()
