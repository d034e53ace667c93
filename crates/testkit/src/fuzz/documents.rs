//! Valid documents that the targets start from: a contract with every type, definitions, rows. Stored states of the view
//! `habits` are among the fixtures: its layout stays as it is.

use std::sync::{Arc, LazyLock};

use headwater_features::Catalog;
use headwater_schema::decode::{BodyFormat, DecodeLimits, decode};
use headwater_schema::yaml::YamlDocument;
use headwater_schema::{Contract, FactBatch};

pub mod visits;

pub const CONTRACT: &str = "\
kind: DataContract
apiVersion: v3.1.0
id: every-type
version: 1.2.0
status: active
schema:
  - name: every
    properties:
      - {name: id, logicalType: string, required: true}
      - {name: who, logicalType: string}
      - {name: code, logicalType: string, logicalTypeOptions: {maxLength: 40, pattern: '^[a-z]*$'}}
      - {name: flag, logicalType: boolean}
      - {name: count, logicalType: integer, logicalTypeOptions: {minimum: -5, maximum: 1000000}}
      - {name: amount, logicalType: number}
      - {name: price, logicalType: number, physicalType: 'decimal(12,2)'}
      - {name: blob, logicalType: string, physicalType: bytes}
      - {name: day, logicalType: date}
      - {name: tags, logicalType: array, items: {name: tag, logicalType: string}}
      - {name: rates, logicalType: object, physicalType: 'map<string,double>'}
      - name: place
        logicalType: object
        properties:
          - {name: zip, logicalType: string}
          - {name: at, logicalType: timestamp}
      - {name: time, logicalType: timestamp, required: true}
    customProperties:
      - {property: headwater.eventTime, value: time}
      - {property: headwater.factId, value: id}
      - {property: headwater.timeUnit, value: us}
      - {property: headwater.timeZone, value: Europe/Berlin}
      - {property: headwater.dedupWindow, value: 30d}
";

pub const DEFINITIONS: &str = "\
apiVersion: headwater/v1
kind: Entity
name: person
owner: people
spec: {keys: [{name: who, type: string}]}
---
apiVersion: headwater/v1
kind: FeatureView
name: habits
owner: people
description: What a person does
spec:
  entity: person
  sources:
    - {contract: every, where: amount IS NOT NULL AND count < 100000}
  retention: 30d
  allowed_lateness: 1h
  storage: tiered
  features:
    - {name: seen, aggregate: count, windows: [1m, 2h, lifetime]}
    - {name: sum, aggregate: sum, of: count + 1, where: flag, windows: [1h, {range: 2h}]}
    - {name: mean, aggregate: avg, of: amount, windows: [7d], default: 0.5}
    - {name: spread, aggregate: stddev, of: amount, sample: true, windows: [1d]}
    - {name: least, aggregate: min, of: day, windows: [{rows: 3}]}
    - {name: latest, aggregate: last_n, n: 3, of: who, nulls: keep, windows: [1d]}
    - {name: kinds, aggregate: distinct_count, of: count, exact_up_to: 64, windows: [lifetime]}
    - {name: places, aggregate: histogram, of: who, n: 5, windows: [1d]}
    - {name: idle, aggregate: time_since_last, windows: [1d]}
    - {name: last_day, of: day, ttl: 8h, stale: keep}
    - {name: trend, expression: 'mean_7d - coalesce(spread_1d, 0.0)'}
---
apiVersion: headwater/v1
kind: FeatureSet
name: all
owner: people
spec: {features: ['habits.*']}
";

/// Rows of the contract, one JSON object each.
pub const ROWS: [&str; 6] = [
    r#"{"id":"a1","who":"ada","code":"abc","flag":true,"count":7,"amount":1.5,"price":12.30,"blob":"aGk=","day":"2026-01-31","tags":["x","y",null],"rates":{"k":1.5,"l":null},"place":{"zip":"10115","at":"2026-01-31T10:00:00Z"},"time":"2026-01-31T10:17:00.123456Z"}"#,
    r#"{"id":"a2","time":1769854620000000}"#,
    r#"{"id":"a3","who":"","flag":false,"count":-5,"amount":-0.0,"price":"9999999999.99","tags":[],"rates":{},"place":{},"time":"2026-03-29T02:30:00"}"#,
    r#"{"id":"a4","who":"bob","amount":1e300,"count":1000000,"day":"0001-01-01","time":"2026-01-31T10:17:00+14:00","more":{"x":[1,"\u00e9\ud83d\ude00"]}}"#,
    r#"{"id":"a5","who":"eve","amount":0.1,"blob":"","time":0}"#,
    r#"{"id":"a6","who":"\u0000\"\\/\b\f\n\r\t","amount":4.9e-324,"time":-1}"#,
];

pub const CSV: &str = "\
id,who,flag,count,amount,price,blob,day,tags,rates,place,time
a1,ada,true,7,1.5,12.30,aGk=,2026-01-31,\"[\"\"x\"\",\"\"y\"\"]\",\"{\"\"k\"\":1.5}\",\"{\"\"zip\"\":\"\"1\"\"}\",2026-01-31T10:17:00Z
a2,\"\",,,,,,,,,,1769854620000000
\"a
3\",\"x\"\"y\",false,-5,NaN,-0.01,,0001-01-01,[],{},{},2026-03-29T02:30:00
";

/// Contract and definitions, and those of [`visits`] with them: everything that there is.
pub fn texts() -> [String; 2] {
    let first = format!("{CONTRACT}---\n{DEFINITIONS}");
    let all = [&first, visits::CONTRACT, visits::DEFINITIONS].join("---\n");
    [first, all]
}

/// The catalog of all documents.
pub static CATALOG: LazyLock<Catalog> = LazyLock::new(|| {
    let [_, text] = texts();
    let documents = YamlDocument::parse_all("fuzz.yaml", &text).expect("YAML");
    Catalog::compile(&documents).unwrap_or_else(|problems| panic!("{problems:?}"))
});

pub fn contract() -> &'static Arc<Contract> {
    CATALOG.contract("every").expect("the contract")
}

pub fn ndjson() -> String {
    ROWS.join("\n")
}

/// The rows as a decoded batch.
pub fn batch() -> FactBatch {
    let limits = DecodeLimits::default();
    let body = ndjson();
    let decoded = decode(contract(), BodyFormat::Ndjson, body.as_bytes(), &limits);
    decoded.expect("a body").batch
}
