"""What `headwater-bench serving` needs of Python: the model that is served, and MLServer to serve it too.

usage: serving.py train FOLDER      trains on rows.f64, named by names.json, and leaves model.txt
       serving.py mlserver FOLDER   serves it until standard input ends; leaves requests for gRPC in requests.bin,
                                    and prints where it listens once it is ready
"""
import json
import os
import socket
import struct
import subprocess
import sys
import time
import urllib.request

import numpy as np

TREES, LEAVES, READY_SECONDS = 500, 31, 120


def read(folder, name, columns):
    return np.fromfile(os.path.join(folder, name), '<f8').reshape(-1, columns)


def train(folder, names):
    import lightgbm
    x = read(folder, 'rows.f64', len(names))
    random = np.random.RandomState(7)
    known = np.nan_to_num(x)
    known = (known - known.mean(0)) / (known.std(0) + 1e-9)
    y = known[:, 0] * known[:, 20] + np.sin(known[:, 5] * 2) + known[:, 30:45].sum(1) * 0.3 + random.randn(len(x)) * 0.5
    data = lightgbm.Dataset(x, (y > np.median(y)).astype(int), feature_name=names)
    settings = {'objective': 'binary', 'num_leaves': LEAVES, 'verbose': -1, 'num_threads': 2}
    booster = lightgbm.train(settings, data, num_boost_round=TREES)
    if booster.num_trees() != TREES:
        sys.exit(f'{booster.num_trees()} trees came of it')
    booster.save_model(os.path.join(folder, 'model.txt'))


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for taken in sockets:
        taken.bind(('127.0.0.1', 0))
    ports = [taken.getsockname()[1] for taken in sockets]
    for taken in sockets:
        taken.close()
    return ports


def leave_requests(folder, columns):
    """One request for each vector, as a message of gRPC behind its length."""
    from mlserver.grpc import dataplane_pb2 as pb
    with open(os.path.join(folder, 'requests.bin'), 'wb') as file:
        for vector in read(folder, 'vectors.f64', columns):
            tensor = pb.ModelInferRequest.InferInputTensor(name='x', datatype='FP64', shape=[1, columns])
            message = pb.ModelInferRequest(model_name='scored', inputs=[tensor], raw_input_contents=[vector.tobytes()])
            message = message.SerializeToString()
            file.write(struct.pack('<I', len(message)) + message)


def serve(folder, columns):
    import mlserver
    leave_requests(folder, columns)
    http, grpc, metrics = free_ports(3)
    home = os.path.join(folder, 'mlserver')
    os.makedirs(home, exist_ok=True)
    # One process, without the logging of a debug build; trees of one row gain nothing from threads.
    settings = {'debug': False, 'host': '127.0.0.1', 'http_port': http, 'grpc_port': grpc, 'metrics_port': metrics, 'parallel_workers': 0}
    model = {'name': 'scored', 'implementation': 'mlserver_lightgbm.LightGBMModel', 'parameters': {'uri': os.path.join(folder, 'model.txt')}}
    for name, content in (('settings.json', settings), ('model-settings.json', model)):
        with open(os.path.join(home, name), 'w') as file:
            json.dump(content, file)
    program = [sys.executable, '-W', 'ignore', '-c', 'from mlserver.cli import main; main()', 'start', home]
    log = open(os.path.join(folder, 'mlserver.log'), 'wb')
    server = subprocess.Popen(program, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, 'OMP_NUM_THREADS': '1'})
    try:
        if not ready(server, f'http://127.0.0.1:{http}/v2/models/scored/ready'):
            log.flush()
            sys.exit('MLServer is not ready:\n' + open(log.name).read()[-2000:])
        print(json.dumps({'peer': f'MLServer {mlserver.__version__}', 'http': http, 'grpc': grpc}), flush=True)
        sys.stdin.read()
    finally:
        server.kill()
        server.wait()


def ready(server, url):
    until = time.monotonic() + READY_SECONDS
    while time.monotonic() < until and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5) as reply:
                return reply.status == 200
        except OSError:
            time.sleep(0.2)
    return False


def main():
    what, folder = sys.argv[1:3]
    with open(os.path.join(folder, 'names.json')) as file:
        names = json.load(file)
    train(folder, names) if what == 'train' else serve(folder, len(names))


if __name__ == '__main__':
    main()
