"""Trains small models with LightGBM, XGBoost and CatBoost, and exports some in ONNX, over a grid of what they can do, and writes each with rows
and with what its package predicts, for the example `compare` of `headwater-models` to hold to.

usage: models.py FOLDER [FAMILY...]
"""
import itertools
import json
import os
import sys

import numpy as np


def write(root, family, index, model, **case):
    """One case: the model was saved to `model` in the folder that `folder` made."""
    folder = os.path.join(root, f'{family}-{index:03}')
    for name in ('rows', 'scores', 'outputs', 'contributions'):
        array = case.pop(name, None)
        if array is not None:
            np.ascontiguousarray(array, dtype='<f8').tofile(os.path.join(folder, name + '.f64'))
    with open(os.path.join(folder, 'case.json'), 'w') as file:
        json.dump({'family': family, 'model': model, **case}, file)


def folder(root, family, index):
    path = os.path.join(root, f'{family}-{index:03}')
    os.makedirs(path, exist_ok=True)
    return path


def table(seed, rows, categories):
    """Columns: normal, whole numbers around zero, mostly zero, two of categories, uniform; with gaps in some."""
    random = np.random.RandomState(seed)
    x = np.empty((rows, 6))
    x[:, 0] = random.randn(rows)
    x[:, 1] = random.randint(-4, 5, rows)
    x[:, 2] = np.where(random.rand(rows) < 0.6, 0, random.randn(rows))
    x[:, 3] = random.randint(0, 5, rows)
    x[:, 4] = random.randint(0, 40, rows)
    x[:, 5] = random.rand(rows)
    if seed % 3:
        for column in (0, 2, 4) if categories else (0, 1, 5):
            x[random.rand(rows) < 0.15, column] = np.nan
    known = np.nan_to_num(x)
    y = known[:, 0] * 2 + np.sin(known[:, 1]) + (known[:, 3] % 3) - (known[:, 4] % 7 == 3) * 2
    y += known[:, 2] * known[:, 5] + random.randn(rows) * 0.3
    return x, y


def probes(x, thresholds, seed, categorical=()):
    """Rows to predict: some of training, each threshold itself with its neighbours, and what is odd."""
    random = np.random.RandomState(seed)
    rows = [x[random.randint(len(x), size=40)]]
    for column, threshold in thresholds:
        for value in (threshold, np.nextafter(threshold, np.inf), np.nextafter(threshold, -np.inf)):
            row = x[random.randint(len(x))].copy()
            row[column] = value
            rows.append(row[None, :])
    odd = [np.nan, 0.0, -0.0, 1e-35, -1e-35, 1e-36, -1e-36, 1.0000000180025095e-35, -1.0000000180025095e-35, 1e30, -1e30]
    for value, column in itertools.product(odd, range(x.shape[1])):
        if column not in categorical or not abs(value) > 1e9:
            row = x[random.randint(len(x))].copy()
            row[column] = value
            rows.append(row[None, :])
    for value, column in itertools.product([-1.0, -0.5, 0.5, 2.9, 39.0, 40.0, 1000.0], categorical):
        row = x[random.randint(len(x))].copy()
        row[column] = value
        rows.append(row[None, :])
    rows.append(np.full((1, x.shape[1]), np.nan))
    return np.concatenate(rows)


def label(objective, y, random):
    """What an objective can learn from."""
    low = y - y.min()
    if objective in ('binary',):
        return (y > np.median(y)).astype(float)
    if objective in ('cross_entropy', 'cross_entropy_lambda'):
        return low / low.max()
    if objective in ('multiclass', 'multiclassova'):
        return np.digitize(y, np.quantile(y, [0.33, 0.66])).astype(float)
    if objective in ('lambdarank', 'rank_xendcg'):
        return np.digitize(y, np.quantile(y, [0.5, 0.8])).astype(float)
    if objective in ('poisson', 'tweedie'):
        return np.floor(low)
    if objective == 'gamma':
        return low + 0.1
    return y


def lightgbm_cases(root):
    import lightgbm
    objectives = ['regression', 'regression_l1', 'huber', 'fair', 'poisson', 'quantile', 'mape', 'gamma', 'tweedie', 'binary',
                  'multiclass', 'multiclassova', 'cross_entropy', 'cross_entropy_lambda', 'lambdarank', 'rank_xendcg']
    variants = [
        {}, {'boosting': 'dart', 'drop_rate': 0.5}, {'boosting': 'rf', 'bagging_freq': 1, 'bagging_fraction': 0.6},
        {'linear_tree': True}, {'zero_as_missing': True}, {'use_missing': False}, {'boost_from_average': False},
        {'extra_trees': True}, {'max_cat_to_onehot': 1, 'min_data_per_group': 1, 'cat_smooth': 1}, {'num_leaves': 31},
        {'max_depth': 2}, {'data_sample_strategy': 'goss'}, {'monotone_constraints': [1, 0, 0, 0, 0, 0]}, {'num_leaves': 127},
    ]
    index = 0
    for objective, variant in itertools.product(objectives, variants):
        categorical = [] if 'monotone_constraints' in variant or index % 4 == 3 else [3, 4]
        # What LightGBM itself refuses.
        if {'linear_tree', 'monotone_constraints'} & set(variant) and objective in ('regression_l1', 'quantile', 'mape'):
            continue
        x, y = table(index, 600, categorical)
        random = np.random.RandomState(index)
        target = label(objective, y, random)
        parameters = {'objective': objective, 'num_leaves': 7, 'min_data_in_leaf': 5, 'verbose': -1, 'num_threads': 1, 'seed': index,
                      'learning_rate': 0.3, **variant}
        if objective.startswith('multiclass'):
            parameters['num_class'] = 3
        if objective == 'regression' and index % 2:
            parameters['reg_sqrt'] = True
        if objective == 'binary' and index % 2:
            parameters['sigmoid'] = 0.7
        groups = [20] * 30 if 'rank' in objective else None
        data = lightgbm.Dataset(x, target, group=groups, categorical_feature=categorical, free_raw_data=False)
        booster = lightgbm.train(parameters, data, num_boost_round=12)
        path = folder(root, 'lightgbm', index)
        booster.save_model(os.path.join(path, 'model.txt'))
        nodes = booster.trees_to_dataframe()
        splits = nodes[nodes['decision_type'] == '<=']
        thresholds = [(int(f.split('_')[1]), float(t)) for f, t in zip(splits['split_feature'], splits['threshold'])]
        random.shuffle(thresholds)
        rows = probes(x, thresholds[:80], index, categorical)
        rounds = 5 if index % 5 == 0 else None
        case = {'iterations': rounds} if rounds else {}
        if not variant.get('linear_tree'):
            case['contributions'] = booster.predict(rows, pred_contrib=True, num_iteration=rounds)
        write(root, 'lightgbm', index, 'model.txt', rows=rows, scores=booster.predict(rows, raw_score=True, num_iteration=rounds),
              outputs=booster.predict(rows, num_iteration=rounds), ulps=0, outputs_off=1e-14, contributions_off=1e-11, **case)
        index += 1
    return index


def xgboost_cases(root):
    import xgboost
    objectives = ['reg:squarederror', 'reg:absoluteerror', 'reg:pseudohubererror', 'reg:squaredlogerror', 'reg:quantileerror', 'reg:logistic',
                  'binary:logistic', 'binary:logitraw', 'binary:hinge', 'count:poisson', 'reg:gamma', 'reg:tweedie', 'survival:cox', 'survival:aft',
                  'multi:softmax', 'multi:softprob', 'rank:ndcg', 'rank:pairwise']
    variants = [{}, {'booster': 'dart', 'rate_drop': 0.5}, {'booster': 'gblinear'}, {'num_parallel_tree': 3, 'subsample': 0.6}, {'max_depth': 8},
                {'grow_policy': 'lossguide', 'max_leaves': 12, 'max_depth': 0}, {'multi_strategy': 'multi_output_tree'}]
    index = 0
    for objective, variant in itertools.product(objectives, variants):
        linear = variant.get('booster') == 'gblinear'
        several = 'multi_strategy' in variant
        if several and objective not in ('reg:squarederror', 'binary:logistic', 'multi:softprob'):
            continue
        categorical = [] if index % 3 == 2 or linear or several else [3, 4]
        x, y = table(index, 600, categorical)
        random = np.random.RandomState(index)
        kind = {'reg:logistic': 'cross_entropy', 'count:poisson': 'poisson', 'reg:gamma': 'gamma', 'reg:tweedie': 'poisson'}
        kind.update({name: 'gamma' for name in ('survival:cox', 'survival:aft', 'reg:squaredlogerror')})
        short = 'multiclass' if 'multi' in objective else 'lambdarank' if 'rank' in objective else 'binary' if 'binary' in objective else ''
        target = label(kind.get(objective, short), y, random)
        if several and objective == 'reg:squarederror':
            target = np.stack([target, -2 * target + x[:, 3]], 1)
        if several and objective == 'binary:logistic':
            target = np.stack([target, 1 - target], 1)
        types = ['c' if c in categorical else 'q' for c in range(x.shape[1])]

        def matrix(values, **more):
            return xgboost.DMatrix(values, feature_types=types, enable_categorical=True, **more)

        data = matrix(x, label=target)
        if 'rank' in objective:
            data.set_group([20] * 30)
        if objective == 'survival:aft':
            data.set_float_info('label_lower_bound', target)
            data.set_float_info('label_upper_bound', target)
        parameters = {'objective': objective, 'max_depth': 3, 'nthread': 1, 'seed': index, 'verbosity': 0, 'learning_rate': 0.5, **variant}
        if objective.startswith('multi'):
            parameters['num_class'] = 3
        if objective == 'reg:quantileerror':
            parameters['quantile_alpha'] = [0.2, 0.7]
        if index % 4 == 1 and objective not in ('multi:softmax', 'multi:softprob'):
            parameters['base_score'] = 0.3
        booster = xgboost.train(parameters, data, num_boost_round=12)
        path = folder(root, 'xgboost', index)
        name = 'model.ubj' if index % 2 else 'model.json'
        booster.save_model(os.path.join(path, name))
        thresholds = []
        if not linear and not several:
            nodes = booster.trees_to_dataframe()
            nodes = nodes[(nodes['Feature'] != 'Leaf') & nodes['Split'].notna()]
            thresholds = [(int(f[1:]), float(np.float32(t))) for f, t in zip(nodes['Feature'], nodes['Split'])]
        if several:
            trees = json.loads(bytes(booster.save_raw('json')))['learner']['gradient_booster']['model']['trees']
            thresholds = [(f, float(np.float32(t))) for tree in trees for f, t, left in
                          zip(tree['split_indices'], tree['split_conditions'], tree['left_children']) if left >= 0]
        random.shuffle(thresholds)
        thresholds = thresholds[:60]
        # The doubles half way to the next floats, too, and beside them.
        for column, t in thresholds[:20]:
            for beside in (np.float32(np.inf), np.float32(-np.inf)):
                thresholds.append((column, (t + float(np.nextafter(np.float32(t), beside))) / 2))
        rows = probes(x, thresholds, index, categorical)
        rounds = 5 if index % 5 == 0 and not linear else None
        options = {'iteration_range': (0, rounds)} if rounds else {}
        case = {'iterations': rounds} if rounds else {}
        values = matrix(rows)
        if not several:
            case['contributions'] = booster.predict(values, pred_contribs=True, **options)
        write(root, 'xgboost', index, name, rows=rows, scores=booster.predict(values, output_margin=True, **options),
              outputs=booster.predict(values, **options), single=True, ulps=1, outputs_off=1e-6, contributions_off=2e-5, **case)
        index += 1
    return index


def catboost_cases(root):
    import catboost
    import pandas
    losses = ['RMSE', 'MAE', 'Quantile', 'Poisson', 'Logloss', 'CrossEntropy', 'MultiClass', 'MultiClassOneVsAll', 'MultiRMSE', 'YetiRank']
    variants = [{}, {'grow_policy': 'Lossguide', 'max_leaves': 12}, {'grow_policy': 'Depthwise'}, {'one_hot_max_size': 60},
                {'max_ctr_complexity': 3, 'one_hot_max_size': 2}, {'nan_mode': 'Max', 'depth': 6},
                {'simple_ctr': ['Borders', 'Counter', 'Buckets', 'BinarizedTargetMeanValue'], 'combinations_ctr': ['Counter', 'Borders']}]
    index = 0
    for loss, variant in itertools.product(losses, variants):
        # With several targets, CatBoost's JSON has the statistics of one of them.
        if loss == 'MultiRMSE':
            variant = {**{k: v for k, v in variant.items() if 'ctr' not in k}, 'one_hot_max_size': 60}
        if 'simple_ctr' in variant and loss in ('MultiClass', 'MultiClassOneVsAll'):
            variant = {'simple_ctr': ['Borders', 'Counter', 'Buckets'], 'combinations_ctr': ['Counter']}
        x, y = table(index, 600, [])
        random = np.random.RandomState(index)
        kind = {'Logloss': 'binary', 'CrossEntropy': 'cross_entropy', 'Poisson': 'poisson', 'MultiClass': 'multiclass',
                'MultiClassOneVsAll': 'multiclass', 'YetiRank': 'lambdarank'}
        target = label(kind.get(loss, ''), y, random)
        target = target / target.max() if loss == 'YetiRank' else target
        target = np.stack([target, x[:, 3] - target], 1) if loss == 'MultiRMSE' else target
        categorical = [] if index % 5 == 4 and 'grow_policy' not in variant else [3, 4]

        def frame(values):
            data = pandas.DataFrame(values, columns=[f'x{i}' for i in range(values.shape[1])])
            for column in categorical:
                words = data[f'x{column}'].fillna(7).astype(int)
                data[f'x{column}'] = ('k' + words.astype(str)) if column == 3 else words
            return data

        def pool(values, **more):
            return catboost.Pool(frame(values), cat_features=[f'x{c}' for c in categorical], **more)

        groups = {'group_id': np.repeat(np.arange(30), 20)} if loss == 'YetiRank' else {}
        data = pool(x, label=target, **groups)
        model = catboost.CatBoost({'loss_function': loss, 'iterations': 12, 'depth': 4, 'learning_rate': 0.3, 'verbose': 0, 'thread_count': 1,
                                   'random_seed': index, 'allow_writing_files': False, **variant})
        model.fit(data)
        path = folder(root, 'catboost', index)
        model.save_model(os.path.join(path, 'model.json'), format='json', pool=data)
        borders = [(f['flat_feature_index'], b) for f in json.load(open(os.path.join(path, 'model.json')))['features_info']['float_features']
                   for b in f['borders']]
        random.shuffle(borders)
        rows = probes(x, borders[:60], index, categorical)
        if categorical:
            rows[:, categorical] = np.nan_to_num(rows[:, categorical]).astype(int)
        written = json.load(open(os.path.join(path, 'model.json')))
        treatment = {f['flat_feature_index']: f['nan_value_treatment'] for f in written['features_info']['float_features']}
        for column, rule in treatment.items():
            if rule == 'AsIs':
                rows[np.isnan(rows[:, column]), column] = 0.5
        values = pool(rows, **({'group_id': np.zeros(len(rows), int)} if groups else {}))
        rounds = 5 if index % 5 == 0 else 0
        case = {'iterations': rounds} if rounds else {}
        # CatBoost's own contributions of trees that aren't symmetric don't add up to its scores.
        if not rounds and 'grow_policy' not in variant:
            case['contributions'] = model.get_feature_importance(values, type='ShapValues')
        types = {'Logloss': 'Probability', 'CrossEntropy': 'Probability', 'MultiClass': 'Probability', 'Poisson': 'Exponent'}
        if loss in types:
            outputs = model.predict(values, prediction_type=types[loss], ntree_end=rounds)
            case['outputs'] = outputs[:, 1] if types[loss] == 'Probability' and outputs.shape[1] == 2 else outputs
        if categorical:
            with open(os.path.join(path, 'rows.json'), 'w') as file:
                json.dump([[None if v != v else v for v in row] for row in frame(rows).astype(object).values.tolist()], file)
        else:
            case['rows'] = rows
        write(root, 'catboost', index, 'model.json', scores=model.predict(values, prediction_type='RawFormulaVal', ntree_end=rounds),
              ulps=0, outputs_off=1e-12, contributions_off=1e-9, **case)
        index += 1
    return index


def pandas_cases(root):
    """Categories by name, as frames have them: the file's lists of them have to be found again."""
    import lightgbm
    import pandas
    import xgboost
    for index in range(12):
        random = np.random.RandomState(index)
        rows = 500
        frame = pandas.DataFrame({
            'kind': pandas.Categorical(random.choice(['a' if index % 2 else 'ä', 'b b', 'c"c', 'd'], rows)), 'amount': random.randn(rows),
            'size': pandas.Categorical(random.choice([10, 20, 30], rows)), 'same': pandas.Categorical(['one'] * rows),
            'shop': pandas.Categorical(random.choice([f's{i}' for i in range(20)], rows)), 'age': random.randint(1, 90, rows).astype(float)})
        if index % 3:
            frame = frame.drop(columns='same')
        y = (frame['kind'] == 'd') * 2.0 + frame['amount'] + frame['size'].astype(int) / 20 + frame['shop'].cat.codes % 3
        probe = frame.iloc[:80].copy()
        for column in ('kind', 'shop', 'amount'):
            probe.loc[probe.index[random.rand(80) < 0.2], column] = None
        if index % 2:
            family, single = 'xgboost-frames', True
            booster = xgboost.train({'max_depth': 4, 'nthread': 1, 'verbosity': 0}, xgboost.DMatrix(frame, y, enable_categorical=True), num_boost_round=8)
            scores = booster.predict(xgboost.DMatrix(probe, enable_categorical=True), output_margin=True)
        else:
            family, single = 'lightgbm-frames', False
            booster = lightgbm.train({'verbose': -1, 'num_threads': 1, 'min_data_in_leaf': 5, 'min_data_per_group': 5}, lightgbm.Dataset(frame, y), num_boost_round=8)
            scores = booster.predict(probe, raw_score=True)
        path = folder(root, family, index)
        name = 'model.json' if single else 'model.txt'
        booster.save_model(os.path.join(path, name))
        with open(os.path.join(path, 'rows.json'), 'w') as file:
            json.dump([[None if v != v else v for v in row] for row in probe.astype(object).values.tolist()], file)
        write(root, family, index, name, scores=scores, single=single, ulps=1 if single else 0, contributions_off=2e-5)
    return 12


def onnx_cases(root):
    import onnx_models
    return onnx_models.onnx_cases(root)


FAMILIES = {'lightgbm': lightgbm_cases, 'xgboost': xgboost_cases, 'catboost': catboost_cases, 'frames': pandas_cases, 'onnx': onnx_cases}


def main():
    root = sys.argv[1]
    for family in sys.argv[2:] or FAMILIES:
        print(f'{family}: {FAMILIES[family](root)} models', flush=True)


if __name__ == '__main__':
    main()
