"""Trains LightGBM on the flights of January to June and tells how it ranks those of July to December.

    python train.py TABLE.parquet [MODEL.txt]

TABLE is the training set of the feature set `flight_delay` with the label `arrives_late` over the spine that
spine.py makes. Flights without a label (cancelled, diverted) are left out of both. The seed is fixed and LightGBM told to
be deterministic. With MODEL the model with weather is written there as LightGBM's text; without, the one that is
already in ../models is ranked beside the new ones.

Prints one JSON object: the AUC of July to December by model, and how many flights there were.
"""

import json
import pathlib
import sys

import lightgbm as lgb
import numpy as np
import pandas as pd

SHIPPED = pathlib.Path(__file__).resolve().parent.parent / "models" / "arrives_late.txt"
LABEL = "arrives_late"
# Local time decides which half of the year a flight is in.
ZONE = "America/New_York"
LAST_MONTH = 6
ROUNDS = 80
PARAMETERS = {
    "objective": "binary",
    "num_leaves": 15,
    "learning_rate": 0.1,
    "min_data_in_leaf": 200,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 10.0,
    "seed": 1,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 2,
    "verbose": -1,
}


def auc(label, score):
    """The share of pairs, one late and one not, that are ranked right; equal scores count half."""
    ranks = pd.Series(score).rank().to_numpy()
    late = int(label.sum())
    others = len(label) - late
    return (ranks[label].sum() - late * (late + 1) / 2) / (late * others)


def main(table, model_out=None):
    rows = pd.read_parquet(table)
    rows = rows[rows[LABEL].notna()]
    label = rows[LABEL].astype(bool).to_numpy()
    month = rows.sched_dep.dt.tz_convert(ZONE).dt.month.to_numpy()
    train, test = month <= LAST_MONTH, month > LAST_MONTH
    features = [c for c in rows.columns if "." in c]
    numbers = rows[features].astype(np.float64)
    sets = {
        "schedule": [c for c in features if c.startswith("flight_delay.")],
        "without_weather": [c for c in features if not c.startswith("origin_weather.")],
        "with_weather": features,
    }
    told = {}
    for name, columns in sets.items():
        data = lgb.Dataset(numbers.loc[train, columns], label[train])
        model = lgb.train(PARAMETERS, data, ROUNDS)
        told[name] = auc(label[test], model.predict(numbers.loc[test, columns]))
        if name == "with_weather" and model_out:
            model.save_model(model_out)
    if not model_out:
        shipped = lgb.Booster(model_file=str(SHIPPED))
        told["shipped"] = auc(label[test], shipped.predict(numbers.loc[test, shipped.feature_name()]))
    print(json.dumps({"auc": told, "trained_on": int(train.sum()), "ranked": int(test.sum())}))


if __name__ == "__main__":
    main(*sys.argv[1:])
