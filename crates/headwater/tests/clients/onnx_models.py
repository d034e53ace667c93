"""Models in ONNX: what skl2onnx, onnxmltools and CatBoost export, trees and networks made by hand, each with what ONNX
Runtime answers, for the example `compare` of `headwater-models` to hold to. A family of `models.py`.
"""
import os
import warnings

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from models import folder, label, probes, table, write

ML = 'ai.onnx.ml'
# Trees and what is before them: the same floats. Behind exponentials and linear models: others' vectors add and round in other orders.
# A quantile of the normal distribution loses digits around its middle, to each its own.
EXACT, NEAR, NETWORK, QUANTILE = {'ulps': 0}, {'ulps': 4}, {'ulps': 2 ** 40, 'outputs_off': 1e-5}, {'ulps': 2 ** 40, 'outputs_off': 2e-4}


def answers(model, feed):
    """All outputs of one row beside each other: numbers as they are, maps by class, without labels of text."""
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=['CPUExecutionProvider'])
    rows = len(next(iter(feed.values())))
    parts = []
    for output in session.run(None, feed):
        if isinstance(output, list):
            classes = sorted(output[0])
            output = np.array([[row[c] for c in classes] for row in output], dtype=np.float32)
        if output.dtype.kind not in 'OU':
            parts.append(output.reshape(rows, -1).astype(np.float64))
    return np.concatenate(parts, axis=1)


def thresholds(model):
    """Columns and thresholds of trees that look at the inputs themselves."""
    found = []
    inputs = {i.name for i in model.graph.input}
    for node in model.graph.node:
        if node.op_type.startswith('TreeEnsemble') and node.input[0] in inputs:
            a = {x.name: helper.get_attribute_value(x) for x in node.attribute}
            found += [(f, v) for f, v, m in zip(a['nodes_featureids'], a['nodes_values'], a['nodes_modes']) if m != b'LEAF']
    return found


class Cases:
    def __init__(self, root):
        self.root, self.index = root, 0

    def add(self, model, x, tolerance, dtype=np.float32, missing=True):
        """Compares on rows of `x`, each threshold with its neighbours, and odd values."""
        onnx.checker.check_model(model)
        random = np.random.RandomState(self.index)
        edges = thresholds(model)
        random.shuffle(edges)
        beside = [(c, (float(t) + float(np.nextafter(np.float32(t), np.float32(np.inf)))) / 2) for c, t in edges[:20]]
        near = [(c, float(np.nextafter(np.float32(t), np.float32(s)))) for c, t in edges[:20] for s in (np.inf, -np.inf)]
        rows = probes(x, [(int(c), float(t)) for c, t in edges[:60]] + beside + near, self.index)
        if not missing:
            rows = rows[~np.isnan(rows).any(axis=1)]
        if tolerance is NETWORK:
            rows = rows[(np.abs(rows) < 1e6).all(axis=1)]
        kinds = {TensorProto.FLOAT: np.float32, TensorProto.DOUBLE: np.float64, TensorProto.INT64: np.int64}
        feed, first = {}, 0
        for given in model.graph.input:
            kind = kinds[given.type.tensor_type.elem_type]
            width = given.type.tensor_type.shape.dim[1].dim_value
            if kind is np.int64:
                rows[:, first:first + width] = np.clip(np.rint(np.nan_to_num(rows[:, first:first + width])), -2 ** 40, 2 ** 40)
            feed[given.name] = rows[:, first:first + width].astype(kind)
            first += width
        family = 'onnx-networks' if tolerance is NETWORK else 'onnx-trees' if tolerance is EXACT else 'onnx-near'
        path = folder(self.root, family, self.index)
        onnx.save(model, os.path.join(path, 'model.onnx'))
        scores = answers(model, feed)
        tolerance = {'outputs_off': 1e-6, **tolerance}
        write(self.root, family, self.index, 'model.onnx', rows=rows, scores=scores, outputs=scores, single=True, **tolerance)
        self.index += 1


def sklearn_cases(cases):
    from skl2onnx import to_onnx
    from sklearn import ensemble, linear_model, neural_network, preprocessing, tree
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    x, y = table(3, 600, [])
    x = x.astype(np.float32)
    binary, three = label('binary', y, None).astype(int), label('multiclass', y, None).astype(int)
    few = {'n_estimators': 12, 'max_depth': 4, 'random_state': 0}

    def add(estimator, target, tolerance, x=x, missing=True, **options):
        estimator.fit(np.nan_to_num(x) if missing else x, target)
        last = estimator.steps[-1][1] if hasattr(estimator, 'steps') else estimator
        model = to_onnx(estimator, x[:1], options={id(last): options} if options else None, target_opset={'': 17, ML: 3})
        cases.add(model, x.astype(np.float64), tolerance, missing=missing)

    add(tree.DecisionTreeClassifier(max_depth=6), binary, EXACT, zipmap=False)
    add(tree.DecisionTreeRegressor(max_depth=6), np.stack([y, -y, x[:, 5]], 1), EXACT)
    add(ensemble.RandomForestClassifier(**few), binary, EXACT)
    add(ensemble.RandomForestClassifier(**few), np.array(['a', 'b', 'c'])[three], EXACT)
    add(ensemble.ExtraTreesRegressor(**few), y, EXACT)
    add(ensemble.GradientBoostingRegressor(**few), y, EXACT)
    add(ensemble.GradientBoostingClassifier(**few), binary, NEAR, zipmap=False)
    add(ensemble.GradientBoostingClassifier(**few), three, NEAR, zipmap='columns')
    add(make_pipeline(preprocessing.StandardScaler(), ensemble.RandomForestClassifier(**few)), three, EXACT, zipmap=False)
    add(make_pipeline(preprocessing.MinMaxScaler(), ensemble.GradientBoostingRegressor(**few)), y, EXACT)
    add(make_pipeline(SimpleImputer(), preprocessing.RobustScaler(), ensemble.GradientBoostingRegressor(**few)), y, EXACT)
    add(make_pipeline(preprocessing.Normalizer('l1'), ensemble.GradientBoostingRegressor(**few)), y, EXACT, missing=False)
    columns = [('scaled', preprocessing.StandardScaler(), [0, 5]), ('filled', SimpleImputer(strategy='median'), [2, 4]), ('same', 'passthrough', [1]),
               ('kind', preprocessing.OneHotEncoder(handle_unknown='ignore'), [3])]
    whole = np.nan_to_num(x)
    add(make_pipeline(ColumnTransformer(columns), ensemble.GradientBoostingRegressor(**few)), y, EXACT, x=whole, missing=False)
    add(make_pipeline(preprocessing.StandardScaler(), linear_model.LogisticRegression()), binary, NETWORK, zipmap=False)
    add(linear_model.LogisticRegression(max_iter=1000), three, NETWORK, missing=False, x=whole, zipmap=False)
    hidden = {'hidden_layer_sizes': (9, 5), 'max_iter': 30, 'random_state': 0}
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        add(neural_network.MLPRegressor(**hidden), y, NETWORK, x=whole, missing=False)
        add(neural_network.MLPClassifier(**hidden), three, NETWORK, x=whole, missing=False, zipmap=False)
        add(make_pipeline(preprocessing.StandardScaler(), neural_network.MLPClassifier(**hidden)), binary, NETWORK, x=whole, missing=False)


def boosters(cases):
    import catboost
    import lightgbm
    import xgboost
    from onnxmltools.convert import convert_lightgbm, convert_xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType
    x, y = table(4, 600, [])
    x = x.astype(np.float32)
    low = y - y.min()
    binary, three = label('binary', y, None).astype(int), label('multiclass', y, None).astype(int)
    types = {'initial_types': [('x', FloatTensorType([None, x.shape[1]]))], 'target_opset': 15}
    few = {'n_estimators': 15, 'n_jobs': 1, 'random_state': 0}
    for estimator, target, tolerance in (
            (lightgbm.LGBMRegressor(num_leaves=9, **few), y, EXACT), (lightgbm.LGBMRegressor(objective='poisson', **few), low, NEAR),
            (lightgbm.LGBMClassifier(num_leaves=9, **few), binary, NEAR), (lightgbm.LGBMClassifier(num_leaves=9, **few), three, NEAR)):
        estimator.set_params(verbose=-1).fit(x, target)
        cases.add(convert_lightgbm(estimator, zipmap=False, **types), x.astype(np.float64), tolerance)
    for estimator, target, tolerance in (
            (xgboost.XGBRegressor(max_depth=4, **few), y, EXACT), (xgboost.XGBRegressor(objective='count:poisson', **few), low, NEAR),
            (xgboost.XGBClassifier(max_depth=4, **few), binary, NEAR), (xgboost.XGBClassifier(max_depth=4, **few), three, NEAR)):
        estimator.fit(x, target)
        cases.add(convert_xgboost(estimator, **types), x.astype(np.float64), tolerance)
    for kind, target, tolerance in ((catboost.CatBoostRegressor, y, EXACT), (catboost.CatBoostClassifier, binary, NEAR), (catboost.CatBoostClassifier, three, NEAR)):
        estimator = kind(iterations=10, depth=4, verbose=0, thread_count=1, allow_writing_files=False).fit(np.nan_to_num(x), target)
        path = os.path.join(cases.root, 'catboost.onnx')
        estimator.save_model(path, format='onnx')
        cases.add(onnx.load(path), x.astype(np.float64), tolerance)
        os.remove(path)


MODES = ['BRANCH_LEQ', 'BRANCH_LT', 'BRANCH_GTE', 'BRANCH_GT', 'BRANCH_EQ', 'BRANCH_NEQ']


def random_trees(random, what, scores, ids, modes, positive):
    """Attributes of some trees of random shapes, with weights for each of `ids` in every leaf."""
    nodes, weights = [], []

    def grow(tree, place, depth):
        if depth == 0 or (depth < 4 and random.rand() < 0.2):
            nodes.append((tree, place, 0, 'LEAF', 0.0, 0, 0, 0))
            for score in ids:
                weight = random.randn()
                weights.append((tree, place, score, abs(weight) / 9 if positive else weight))
            return
        mode, column = modes[random.randint(len(modes))], random.randint(3)
        threshold = float(random.randint(-2, 3)) if column == 1 else float(np.float32(random.randn()))
        nodes.append((tree, place, column, mode, threshold, 2 * place + 1, 2 * place + 2, random.randint(2)))
        grow(tree, 2 * place + 1, depth - 1)
        grow(tree, 2 * place + 2, depth - 1)

    for tree in range(9):
        grow(tree, 0, 4)
    names = ['treeids', 'nodeids', 'featureids', 'modes', 'values', 'truenodeids', 'falsenodeids', 'missing_value_tracks_true']
    attributes = {f'nodes_{name}': list(column) for name, column in zip(names, zip(*nodes))}
    return {**attributes, **{f'{what}_{name}': list(c) for name, c in zip(['treeids', 'nodeids', 'ids', 'weights'], zip(*weights))}}


def by_hand(cases):
    """What no converter writes: every mode, missing values, transforms, base values, types of inputs."""
    random = np.random.RandomState(7)
    x = np.stack([random.randn(300), random.randint(-3, 4, 300).astype(float), random.randn(300)], 1)

    def add(op, tolerance, ids, scores, kind=TensorProto.FLOAT, modes=MODES, positive=False, **more):
        what = 'class' if 'Classifier' in op else 'target'
        attributes = {**random_trees(random, what, scores, ids, modes, positive), **more}
        if what == 'class':
            attributes['classlabels_int64s'] = [5 * c for c in range(scores)]
        else:
            attributes['n_targets'] = scores
        outputs = ['label', 'y'] if what == 'class' else ['y']
        values = [helper.make_tensor_value_info(name, TensorProto.INT64, [None]) if name == 'label' else
                  helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None]) for name in outputs]
        graph = helper.make_graph([helper.make_node(op, ['x'], outputs, domain=ML, **attributes)], 'trees',
                                  [helper.make_tensor_value_info('x', kind, [None, 3])], values)
        opsets = [helper.make_opsetid('', 17), helper.make_opsetid(ML, 3)]
        cases.add(helper.make_model(graph, opset_imports=opsets, ir_version=8), x, tolerance)

    for mode in MODES:
        add('TreeEnsembleRegressor', EXACT, [0], 1, modes=[mode])
    add('TreeEnsembleRegressor', EXACT, [0], 1, base_values=[0.3])
    add('TreeEnsembleRegressor', EXACT, [0, 1, 2], 3, base_values=[0.3, -1.0, 7.0], aggregate_function='AVERAGE')
    add('TreeEnsembleRegressor', EXACT, [2, 0], 3, kind=TensorProto.DOUBLE)
    add('TreeEnsembleRegressor', EXACT, [0, 1, 2], 3, kind=TensorProto.DOUBLE, base_values=[0.3, -1.0, 7.0])
    add('TreeEnsembleClassifier', EXACT, [0, 1, 2], 3, kind=TensorProto.INT64)
    for transform in ('SOFTMAX', 'LOGISTIC', 'SOFTMAX_ZERO', 'PROBIT'):
        tolerance = QUANTILE if transform == 'PROBIT' else NEAR
        add('TreeEnsembleRegressor', tolerance, [0, 1, 2], 3, positive=transform == 'PROBIT', post_transform=transform)
        add('TreeEnsembleClassifier', tolerance, [0, 1, 2], 3, positive=transform == 'PROBIT', post_transform=transform)
    for transform in ('NONE', 'LOGISTIC', 'SOFTMAX'):
        for positive in (True, False):
            add('TreeEnsembleClassifier', NEAR if transform == 'LOGISTIC' else EXACT, [0], 2, positive=positive, post_transform=transform)
    add('TreeEnsembleClassifier', EXACT, [0], 2, base_values=[0.3])
    add('TreeEnsembleClassifier', NEAR, [1], 2, post_transform='SOFTMAX')
    add('TreeEnsembleClassifier', NEAR, [0, 1, 2, 3], 4, kind=TensorProto.DOUBLE, post_transform='SOFTMAX')


def networks(cases):
    """Layers by hand, for operators that scikit-learn's networks lack."""
    random = np.random.RandomState(9)
    x = random.randn(200, 8)

    def tensor(name, *shape):
        return numpy_helper.from_array(random.randn(*shape).astype(np.float32), name)

    def add(nodes, weights, kind=TensorProto.FLOAT):
        graph = helper.make_graph(nodes, 'network', [helper.make_tensor_value_info('x', kind, [None, 8])],
                                  [helper.make_tensor_value_info('y', TensorProto.FLOAT, [None, None])], weights)
        cases.add(helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8), x, NETWORK, missing=False)

    node = helper.make_node
    for act in ('Relu', 'Tanh', 'Sigmoid', 'Elu', 'LeakyRelu', 'Selu', 'Softplus', 'HardSigmoid', 'Erf'):
        add([node('Gemm', ['x', 'w', 'b'], ['h']), node(act, ['h'], ['a']), node('Gemm', ['a', 'v'], ['s']), node('Softmax', ['s'], ['y'], axis=1)],
            [tensor('w', 8, 16), tensor('b', 16), tensor('v', 16, 4)])
    add([node('MatMul', ['x', 'w'], ['h']), node('LayerNormalization', ['h', 'g', 'b'], ['n']), node('Relu', ['n'], ['a']), node('MatMul', ['a', 'v'], ['y'])],
        [tensor('w', 8, 16), tensor('g', 16), tensor('b', 16), tensor('v', 16, 1)])


def onnx_cases(root):
    cases = Cases(root)
    for family in (sklearn_cases, boosters, by_hand, networks):
        family(cases)
    return cases.index
