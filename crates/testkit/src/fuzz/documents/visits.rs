//! Definitions with everything that a view, a set and a label can be written with, over a second contract: every aggregate
//! function, every window, categories, lists and maps, several sources, views of views.

use std::ops::Range;

use headwater_schema::FactBatch;
use headwater_schema::decode::{BodyFormat, DecodeLimits, decode};
use serde_json::json;

use super::CATALOG;

pub const CONTRACT: &str = "\
kind: DataContract
apiVersion: v3.1.0
id: visits
version: 1.0.0
status: active
schema:
  - name: visit
    properties:
      - {name: id, logicalType: string, required: true}
      - {name: who, logicalType: string}
      - {name: shop, logicalType: string}
      - {name: spent, logicalType: number}
      - {name: price, logicalType: number, physicalType: 'decimal(12,2)'}
      - {name: items, logicalType: integer}
      - {name: scores, logicalType: array, items: {name: score, logicalType: integer}}
      - {name: taste, logicalType: array, items: {name: part, logicalType: number}}
      - {name: minutes, logicalType: object, physicalType: 'map<string,double>'}
      - {name: time, logicalType: timestamp, required: true}
    customProperties:
      - {property: headwater.eventTime, value: time}
      - {property: headwater.factId, value: id}
      - {property: headwater.timeUnit, value: us}
";

/// Beside the definitions of the first contract.
pub const DEFINITIONS: &str = "\
apiVersion: headwater/v1
kind: Entity
name: shop
spec: {keys: [{name: shop, type: string}]}
---
apiVersion: headwater/v1
kind: FeatureView
name: tastes
spec:
  entity: person
  sources: [{contract: visit}]
  retention: 30m
  features:
    - name: visits
      aggregate: count
      windows: [1h, {exact: 2h}, {range: 2h}, {sawtooth: 2h, hop: 5m}, {tumbling: 1h}, {hopping: 1h, every: 5m}, {session: 30m}, {rows: 3}, lifetime]
    - name: shifted
      aggregate: count
      windows: [{tumbling: 1w, align: 4d, offset: 1h, as: last_week}, {hopping: 1h, every: 5m, partial: true, limit: 7, as: this_hour}]
    - {name: spent, aggregate: sum, of: spent, windows: [lifetime]}
    - {name: paid, aggregate: sum, of: price, windows: [1h]}
    - {name: mean, aggregate: avg, of: spent, windows: [1h]}
    - {name: least, aggregate: min, of: shop}
    - {name: most, aggregate: max, of: spent * 2, where: items > 2, windows: [1h]}
    - {name: first_shop, aggregate: first, of: shop, nulls: keep}
    - {name: last_items, aggregate: last, of: items, ttl: 8h, stale: keep}
    - {name: first_prices, aggregate: first_n, of: price, n: 3}
    - {name: last_shops, aggregate: last_n, of: shop, n: 4, nulls: keep}
    - {name: variance, aggregate: variance, of: price}
    - {name: spread, aggregate: stddev, of: spent, sample: true}
    - {name: lean, aggregate: skew, of: spent}
    - {name: tails, aggregate: kurtosis, of: items, sample: true}
    - {name: kinds, aggregate: distinct_count, of: spent, exact_up_to: 16}
    - {name: seen, aggregate: distinct_n, of: shop, n: 2}
    - {name: median, aggregate: quantile, of: price, quantile: 0.5}
    - {name: levels, aggregate: quantile, of: spent, quantile: [0, 0.25, 0.99], exact_up_to: 16}
    - {name: dearest, aggregate: top_n, of: price, n: 3}
    - {name: cheapest, aggregate: bottom_n, of: spent, n: 3}
    - {name: cheap_shop, aggregate: min_by, of: shop, order_by: price}
    - {name: great_spent, aggregate: max_by, of: spent, order_by: items}
    - {name: shops, aggregate: histogram, of: shop, max_categories: 2}
    - {name: common, aggregate: top_values, of: items, n: 2}
    - {name: faded, aggregate: decayed_sum, of: spent, half_life: 1h}
    - {name: faded_visits, aggregate: decayed_count, half_life: 1h}
    - {name: faded_mean, aggregate: decayed_avg, of: price, half_life: 10m}
    - {name: pace, aggregate: rate, windows: [1h]}
    - {name: since, aggregate: time_since_first}
    - {name: idle, aggregate: time_since_last, of: items, windows: [1d]}
    - {name: spent_by_shop, aggregate: sum, of: spent, by: shop}
    - {name: top_shops, aggregate: count, by: shop, n: 2, windows: [1h]}
    - {name: median_by_shop, aggregate: quantile, of: spent, quantile: 0.5, exact_up_to: 16, by: shop}
    - {name: most_by_items, aggregate: max, of: spent, by: items, max_categories: 3}
    - {name: score, aggregate: avg, of: scores, unnest: true}
    - {name: scores_by_shop, aggregate: last_n, of: scores, n: 2, unnest: true, by: shop}
    - {name: minutes, aggregate: sum, of: minutes, unnest: true}
    - {name: taste, aggregate: avg, of: taste, element_wise: true}
    - {name: uneven, aggregate: max, of: scores, element_wise: true}
    - {name: last_taste, of: taste, ttl: 8h}
    - {name: share, expression: 'mean_1h / spent_lifetime', default: 0}
---
apiVersion: headwater/v1
kind: FeatureView
name: activity
spec:
  entity: person
  sources:
    - {contract: every, where: worth IS NOT NULL, columns: {worth: amount}}
    - {contract: visit, columns: {worth: spent}}
  retention: 90d
  features:
    - {name: acts, aggregate: count, windows: [1h, lifetime]}
    - {name: worth, aggregate: max, of: worth, windows: [{session: 1h}, lifetime]}
    - {name: places, aggregate: distinct_n, of: shop, n: 2, source: visit}
---
apiVersion: headwater/v1
kind: FeatureView
name: guests
spec:
  entity: shop
  sources: [{view: tastes, where: visits_1h > 1}]
  features:
    - {name: visits, aggregate: count, windows: [1h]}
    - {name: usual, aggregate: avg, of: mean_1h, windows: [{tumbling: 30m}]}
---
apiVersion: headwater/v1
kind: FeatureSet
name: everything
spec:
  features: ['tastes.*', 'activity.*', 'guests.*']
  context:
    - {name: asked, type: number}
    - {name: channel, type: string}
  on_demand:
    - {name: times, expression: asked / tastes.mean_1h, default: 0}
    - {name: odd, expression: times > 2 OR channel = 'web'}
---
apiVersion: headwater/v1
kind: Label
name: comes_back
spec: {contract: visit, match: person, condition: items IS NOT NULL, horizon: 2h, otherwise: false}
---
apiVersion: headwater/v1
kind: Label
name: spends
spec: {contract: visit, match: {who: visitor}, horizon: 3h, value: spent, aggregate: max, early_negative: true}
";

/// How many rows there are; their times end where windows of the other contract's rows do.
pub const ROWS: u64 = 400;
const FIRST: u64 = 1_769_843_000_000_000;

/// Some rows of the contract, one JSON object each.
pub fn ndjson(numbers: Range<u64>) -> String {
    let row = |n: u64| {
        let shops = [Some("north"), Some("south"), None, Some("east")];
        let some = |hidden: u64, value: f64| (!n.is_multiple_of(hidden)).then_some(value);
        let minutes = match n % 3 {
            0 => json!({"home": n % 7, "cart": 0.5}),
            1 => json!({"cart": n}),
            _ => json!({}),
        };
        let row = json!({
            "id": format!("v{n}"),
            "who": if n.is_multiple_of(5) { "bob" } else { "ada" },
            "shop": shops[(n % 4) as usize],
            "spent": some(17, (n * 37 % 101) as f64 / 4.0),
            "price": format!("{}.{:02}", n % 23, n % 100),
            "items": some(11, (n % 7) as f64).map(|items| items as u64),
            "scores": (0..n % 3 + 1).map(|i| (n + i) % 6).collect::<Vec<_>>(),
            "taste": [Some(n as f64 / 2.0), Some((n * n % 17) as f64), some(13, 1.5)],
            "minutes": minutes,
            "time": FIRST + n * 30_000_000,
        });
        row.to_string()
    };
    numbers.map(row).collect::<Vec<_>>().join("\n")
}

/// All rows as a decoded batch.
pub fn batch() -> FactBatch {
    let contract = CATALOG.contract("visit").expect("the contract");
    let body = ndjson(0..ROWS);
    let limits = DecodeLimits::default();
    let decoded = decode(contract, BodyFormat::Ndjson, body.as_bytes(), &limits).expect("a body");
    assert!(decoded.rejected.is_empty(), "{:?}", decoded.rejected);
    decoded.batch
}
