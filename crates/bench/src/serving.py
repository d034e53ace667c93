"""Trains the model that `headwater-bench -- serving` serves: 500 trees with 31 leaves over the features that it names, in
about the ranges that they have. Writes model.txt, and a folder that MLServer serves it from. Prints MLServer's version,
or nothing where it isn't installed.

usage: serving.py FOLDER HTTP_PORT FEATURE...
"""
import importlib.metadata
import json
import pathlib
import sys

import lightgbm
import numpy as np

TREES, LEAVES, ROWS = 500, 31, 20_000


def main(folder, port, names):
    random = np.random.RandomState(7)
    x = np.abs(random.randn(ROWS, len(names))) * [20 if 'count' in name else 60 for name in names]
    x[random.rand(*x.shape) < 0.02] = np.nan
    known = np.nan_to_num(x)
    y = known[:, 0] * known[:, 20] % 300 + known[:, 5:40].sum(1) * 0.2 + random.randn(ROWS) * 20
    train = lightgbm.Dataset(x, (y > np.median(y)).astype(int), feature_name=names)
    booster = lightgbm.train({'objective': 'binary', 'num_leaves': LEAVES, 'verbose': -1, 'num_threads': 1}, train, num_boost_round=TREES)
    folder = pathlib.Path(folder)
    booster.save_model(folder / 'model.txt')
    peer = folder / 'mlserver'
    peer.mkdir()
    booster.save_model(peer / 'model.bst')
    settings = {'http_port': port, 'grpc_port': port + 1, 'metrics_port': port + 2, 'host': '127.0.0.1', 'parallel_workers': 0, 'debug': False}
    (peer / 'settings.json').write_text(json.dumps(settings))
    model = {'name': 'risk', 'implementation': 'mlserver_lightgbm.LightGBMModel', 'parameters': {'uri': './model.bst'}}
    (peer / 'model-settings.json').write_text(json.dumps(model))
    try:
        importlib.metadata.version('mlserver-lightgbm')
        print(importlib.metadata.version('mlserver'))
    except importlib.metadata.PackageNotFoundError:
        pass


if __name__ == '__main__':
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
