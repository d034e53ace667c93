"""Feast's own SDK and its documented HTTP calls, unchanged, against `headwater serve`."""

import datetime
import json
import pathlib
import sys
import tempfile

import pandas as pd
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, PushSource, ValueType
from feast.errors import FeatureServiceNotFoundException
from feast.repo_config import RepoConfig
from feast.types import Float64, Int64, String, UnixTimestamp

from project import call, served

EPOCH = "1970-01-01T00:00:00Z"
T0 = datetime.datetime(2024, 5, 1, 10, tzinfo=datetime.timezone.utc)


def check(what, seen, expected):
    assert seen == expected, f"{what}: {seen!r}, not {expected!r}"


def plain_calls(url):
    """The calls of Feast's documentation, by hand."""
    check("health", call(f"{url}/health"), (200, ""))
    frame = {
        "driver_id": [1001, 1002],
        "event_timestamp": ["2024-05-01 08:00:00", "2024-05-01T08:00:00.250000+00:00"],
        "conv_rate": [0.5, None],
        "avg_daily_trips": [7, 8],
        "created": ["2024-05-01 08:00:01", None],
    }
    push = {"push_source_name": "driver_hourly", "df": frame, "to": "online_and_offline"}
    check("push", call(f"{url}/push", push), (200, ""))
    check("the same again", call(f"{url}/push", push), (200, ""))
    features = ["driver_stats:conv_rate", "driver_stats:reports_lifetime", "driver_stats:reports_odd"]
    body = {"features": features, "entities": {"driver_id": [1001, 1002, 9], "ignored": [1.5, {}, []]}}
    status, text = call(f"{url}/get-online-features", body)
    check("status", status, 200)
    times = ["2024-05-01T08:00:00Z", "2024-05-01T08:00:00.250Z", EPOCH]
    expected = {
        "metadata": {"feature_names": ["driver_id", "conv_rate", "reports_lifetime", "reports_odd"]},
        "results": [
            {"values": [1001, 1002, 9], "statuses": ["PRESENT"] * 3, "event_timestamps": [EPOCH] * 3},
            {"values": [0.5, None, None], "statuses": ["PRESENT", "NULL_VALUE", "NOT_FOUND"], "event_timestamps": times},
            {"values": [1, 1, 0], "statuses": ["PRESENT", "PRESENT", "NOT_FOUND"], "event_timestamps": times},
            {"values": [None] * 3, "statuses": ["NULL_VALUE", "NULL_VALUE", "NOT_FOUND"], "event_timestamps": times},
        ],
    }
    check("features", json.loads(text), expected)
    body = {"feature_service": "driver_activity", "entities": {"driver_id": [1001]}, "full_feature_names": True}
    metadata = json.loads(call(f"{url}/get-online-features", body)[1])["metadata"]
    names = ["driver_id", "driver_stats__conv_rate", "driver_stats__reports_lifetime"]
    check("full names", metadata, {"feature_names": names})


def plain_mistakes(url):
    """What goes wrong is worded as Feast words it, and takes nothing in."""

    def exception(path, body, status):
        seen, text = call(f"{url}{path}", body)
        check(f"the status of {path}", seen, status)
        return json.loads(json.loads(text))["class"]

    keys = {"driver_id": [1001]}
    read = "/get-online-features"
    found = exception(read, {"feature_service": "none", "entities": keys}, 404)
    check("an unknown service", found, "FeatureServiceNotFoundException")
    twice = {"features": ["driver_stats:city", "driver_stats:city"], "entities": keys}
    check("a collision", exception(read, twice, 422), "FeatureNameCollisionError")
    frame = {"driver_id": [1], "event_timestamp": ["2024-05-01T08:00:00Z"], "conv_rate": ["high"]}
    found = exception("/push", {"push_source_name": "none", "df": frame}, 422)
    check("an unknown source", found, "PushSourceNotFoundException")
    status, text = call(f"{url}/push", {"push_source_name": "driver_hourly", "df": frame})
    check("a wrong type", status, 422)
    check("where it is", json.loads(text)["detail"][0]["loc"], ["body", "df", "conv_rate", "0"])
    for wrong in [{"entities": keys}, {"features": ["driver_stats:city"]}, {"features": [1], "entities": keys}]:
        status, text = call(f"{url}{read}", wrong)
        check(f"{wrong}", (status, "detail" in json.loads(text)), (422, True))


def definitions(folder):
    """What a user of Feast has in their repository already."""
    driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
    batch = FileSource(name="driver_batch", path=str(folder / "none.parquet"), timestamp_field="event_timestamp")
    source = PushSource(name="driver_push", batch_source=batch)
    stats = FeatureView(
        name="driver_stats",
        entities=[driver],
        ttl=datetime.timedelta(0),
        schema=[
            Field(name="driver_id", dtype=Int64),
            Field(name="conv_rate", dtype=Float64),
            Field(name="trips", dtype=Int64),
            Field(name="city", dtype=String),
            Field(name="licensed_at", dtype=UnixTimestamp),
        ],
        source=source,
    )
    known = FeatureService(name="driver_activity", features=[stats[["conv_rate"]]])
    unknown = FeatureService(name="only_in_feast", features=[stats[["conv_rate"]]])
    return [driver, source, stats, known, unknown]


def sdk(url):
    """FeatureStore with a remote online store: push, read, and Feast's own exceptions."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        store = FeatureStore(
            config=RepoConfig(
                project="rides",
                registry=str(folder / "registry.db"),
                provider="local",
                online_store={"type": "remote", "path": url},
                entity_key_serialization_version=3,
            )
        )
        store.apply(definitions(folder))
        frame = pd.DataFrame(
            {
                "driver_id": [1, 2],
                "event_timestamp": [T0, T0],
                "conv_rate": [0.25, 1.0],
                "trips": [10, 20],
                "city": ["Oslo", None],
                "licensed_at": [datetime.datetime(2001, 2, 3, tzinfo=datetime.timezone.utc)] * 2,
            }
        )
        store.push("driver_push", frame)
        features = ["driver_stats:conv_rate", "driver_stats:trips", "driver_stats:city", "driver_stats:licensed_at"]
        rows = [{"driver_id": 2}, {"driver_id": 1}, {"driver_id": 3}]
        read = store.get_online_features(features=features, entity_rows=rows).to_dict()
        licensed = 981158400
        seen = {name: [getattr(v, "timestamp", lambda v=v: v)() for v in values] for name, values in read.items()}
        expected = {
            "driver_id": [2, 1, 3],
            "conv_rate": [1.0, 0.25, None],
            "trips": [20, 10, None],
            "city": [None, "Oslo", None],
            "licensed_at": [licensed, licensed, None],
        }
        check("what was pushed", seen, expected)

        frame["event_timestamp"] = T0 + datetime.timedelta(hours=1)
        frame["conv_rate"] = [0.75, 0.5]
        store.write_to_online_store("driver_stats", frame)
        service = store.get_feature_service("driver_activity")
        read = store.get_online_features(features=service, entity_rows=rows[:2]).to_dict()
        expected = {"driver_id": [2, 1], "conv_rate": [0.5, 0.75], "reports_lifetime": [2, 2]}
        check("the feature service", read, expected)

        # The way of older clients, one view at a time.
        remote = store._get_provider().online_store
        view = store.get_feature_view("driver_stats")
        from feast.protos.feast.types.EntityKey_pb2 import EntityKey
        from feast.protos.feast.types.Value_pb2 import Value

        keys = [EntityKey(join_keys=["driver_id"], entity_values=[Value(int64_val=k)]) for k in (1, 3)]
        (time, found), (_, missing) = remote.online_read(store.config, view, keys, ["conv_rate", "licensed_at"])
        check("the event time", time, T0 + datetime.timedelta(hours=1))
        check("a value", found["conv_rate"].double_val, 0.75)
        check("a time", found["licensed_at"].unix_timestamp_val, licensed)
        check("a missing value", missing["conv_rate"].WhichOneof("val"), None)

        try:
            store.get_online_features(features=store.get_feature_service("only_in_feast"), entity_rows=rows)
        except FeatureServiceNotFoundException as error:
            assert "only_in_feast" in str(error), error
        else:
            raise AssertionError("an unknown service was read")


def main():
    with served(sys.argv[1]) as url:
        plain_calls(url)
        plain_mistakes(url)
        sdk(url)
    print("Feast's client: passed")


if __name__ == "__main__":
    main()
