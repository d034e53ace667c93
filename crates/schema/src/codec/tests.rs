//! Round trips of all types, and of bytes that are none of ours.

use proptest::prelude::*;

use super::*;
use crate::decode::{BodyFormat, DecodeLimits, decode};
use crate::{Contract, EntityKey, Value, array_from_values};

/// A small budget, so that damaged lengths can't slow the tests.
const TEST_BUDGET: usize = 1 << 22;

fn data_type() -> impl Strategy<Value = DataType> {
    let leaf = prop_oneof![
        Just(DataType::Bool),
        Just(DataType::Int64),
        Just(DataType::Float64),
        Just(DataType::Decimal {
            precision: 38,
            scale: 4
        }),
        Just(DataType::String),
        Just(DataType::Bytes),
        Just(DataType::Timestamp),
        Just(DataType::Date),
    ];
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|t| DataType::List(Arc::new(t))),
            inner.clone().prop_map(|t| DataType::Map(Arc::new(t))),
            prop::collection::vec(inner, 1..4).prop_map(|types| {
                let field = |(i, t)| Field::new(format!("m{i}"), t);
                DataType::Struct(types.into_iter().enumerate().map(field).collect())
            }),
        ]
    })
}

fn value_of(data_type: &DataType) -> BoxedStrategy<Value> {
    let present: BoxedStrategy<Value> = match data_type {
        DataType::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        DataType::Int64 => prop_oneof![any::<i64>(), -5..5i64, Just(60_000_000)]
            .prop_map(Value::Int)
            .boxed(),
        DataType::Float64 => prop_oneof![any::<f64>(), (-9..9i32).prop_map(f64::from), Just(-0.0)]
            .prop_map(Value::Float)
            .boxed(),
        DataType::Decimal { scale, .. } => {
            let scale = *scale;
            let digits = 10i128.pow(38) - 1;
            prop_oneof![-digits..digits, -50..50i128]
                .prop_map(move |unscaled| Value::Decimal { unscaled, scale })
                .boxed()
        }
        DataType::String => prop_oneof!["[ab]{0,2}", "\\PC{0,9}"]
            .prop_map(Value::string)
            .boxed(),
        DataType::Bytes => prop::collection::vec(any::<u8>(), 0..6)
            .prop_map(|b| Value::Bytes(b.into()))
            .boxed(),
        DataType::Timestamp => prop_oneof![any::<i64>(), (0..99i64).prop_map(|m| m * 60_000_000)]
            .prop_map(Value::Timestamp)
            .boxed(),
        DataType::Date => any::<i32>().prop_map(Value::Date).boxed(),
        DataType::List(item) => prop::collection::vec(value_of(item), 0..4)
            .prop_map(|items| Value::List(items.into()))
            .boxed(),
        DataType::Struct(fields) => {
            let members: Vec<_> = fields
                .iter()
                .map(|f| (Just(Arc::clone(&f.name)), value_of(&f.data_type)))
                .collect();
            members
                .prop_map(|members| Value::Struct(members.into()))
                .boxed()
        }
        DataType::Map(value) => prop::collection::btree_map("[a-c]{1,2}", value_of(value), 0..4)
            .prop_map(|entries| {
                Value::Map(
                    entries
                        .into_iter()
                        .map(|(k, v)| (Value::string(k), v))
                        .collect(),
                )
            })
            .boxed(),
    };
    prop_oneof![1 => Just(Value::Null), 4 => present].boxed()
}

/// A column of any type with values of it.
fn column() -> impl Strategy<Value = (DataType, Vec<Value>)> {
    data_type().prop_flat_map(|t| {
        let values = prop::collection::vec(value_of(&t), 0..40);
        (Just(t), values)
    })
}

/// Exact equality, NaN and the sign of zero included.
fn same(a: &Value, b: &Value) -> bool {
    format!("{a:?}") == format!("{b:?}")
}

fn array_of(data_type: &DataType, values: &[Value]) -> ArrayRef {
    array_from_values(data_type, values.iter()).unwrap()
}

fn column_bytes(data_type: &DataType, array: &ArrayRef) -> Vec<u8> {
    let mut out = Writer::default();
    write_column(&mut out, array.as_ref(), data_type);
    out.into_bytes()
}

const CONTRACT: &str = "
kind: DataContract
apiVersion: v3.1.0
id: x
status: active
version: 1.0.0
schema:
  - name: departure
    properties:
      - {name: time, logicalType: timestamp}
      - {name: tailnum, logicalType: string}
      - {name: delay, logicalType: number}
      - {name: flight, logicalType: integer}
      - {name: cancelled, logicalType: boolean}
    customProperties:
      - {property: headwater.eventTime, value: time}
      - {property: headwater.factId, value: [flight, time]}
";

fn flights(rows: usize) -> FactBatch {
    static CONTRACT_ONCE: std::sync::OnceLock<Contract> = std::sync::OnceLock::new();
    let contract =
        CONTRACT_ONCE.get_or_init(|| Contract::parse_yaml("c.yaml", CONTRACT).unwrap().remove(0));
    let body: String = (0..rows)
        .map(|i| {
            format!(
                "{{\"time\":\"2013-01-{:02}T{:02}:{:02}:00Z\",\"tailnum\":\"N{:05}\",\"delay\":{},\"flight\":{},\"cancelled\":false,\"gate\":{i}}}\n",
                1 + i / 900 % 28, i / 60 % 15, i % 60, i * 7919 % 300, (i * 31 % 90) as i64 - 10, 1 + i
            )
        })
        .collect();
    let decoded = decode(
        contract,
        BodyFormat::Ndjson,
        body.as_bytes(),
        &DecodeLimits::default(),
    )
    .unwrap();
    assert!(decoded.rejected.is_empty(), "{:?}", decoded.rejected[0]);
    decoded.batch
}

fn assert_same(a: &FactBatch, b: &FactBatch) {
    assert_eq!(a.contract, b.contract);
    assert_eq!(a.columns, b.columns);
    assert_eq!(a.event_times, b.event_times);
    assert_eq!(a.fact_ids, b.fact_ids);
    assert_eq!(a.unknown_fields, b.unknown_fields);
}

#[test]
fn batches_come_back_and_are_small() {
    for rows in [0, 1, 2, 1000] {
        let batch = flights(rows);
        let bytes = encode_batch(&batch);
        assert_same(&decode_batch(&bytes).unwrap(), &batch);
    }
    let one = encode_batch(&flights(1));
    assert!(one.len() < 110, "a single fact takes {} bytes", one.len());
    // 1 time, 1 string, 2 numbers, 1 boolean, and an unknown field as text.
    let many = encode_batch(&flights(1000));
    assert!(many.len() < 24_000, "1000 facts take {} bytes", many.len());
}

#[test]
fn ids_and_times_that_columns_hold_are_not_stored_twice() {
    let mut batch = flights(500);
    batch.unknown_fields = None;
    let with = encode_batch(&batch).len();
    batch.fact_ids = None;
    let without = encode_batch(&batch).len();
    assert!(with <= without + 4, "{with} {without}");
    let ids: Vec<String> = (0..500).map(|i| format!("other-{i}")).collect();
    batch.fact_ids = Some(StringArray::from(ids));
    batch.event_times.iter_mut().for_each(|t| *t += 1);
    assert_same(&decode_batch(&encode_batch(&batch)).unwrap(), &batch);
}

#[test]
fn other_versions_are_named() {
    let mut bytes = encode_batch(&flights(1));
    bytes[0] = 9;
    let problem = decode_batch(&bytes).unwrap_err();
    assert!(problem.detail.contains("version 9"), "{problem}");
    assert!(decode_batch(&[]).is_err());
}

/// Format 1 as it was first written; it must stay readable.
#[test]
fn released_bytes_stay_readable() {
    const RELEASED: &[u8] = include_bytes!("../../assets/batch-v1.bin");
    let batch = decode_batch(RELEASED).unwrap();
    assert_same(&batch, &flights(20));
}
proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn columns_come_back((data_type, values) in column()) {
        let array = array_of(&data_type, &values);
        let bytes = column_bytes(&data_type, &array);
        let mut reader = Reader::new(&bytes, BUDGET_BASE);
        let back = read_column(&mut reader, &data_type, values.len(), 0).unwrap();
        reader.finish().unwrap();
        prop_assert_eq!(back.data_type(), &data_type.to_arrow());
        for (row, value) in values.iter().enumerate() {
            let read = Value::from_array(back.as_ref(), row);
            prop_assert!(same(&read, value), "{:?} {:?}", read, value);
        }
    }

    #[test]
    fn slices_come_back((data_type, values) in column(), cut in 0..20usize) {
        let array = array_of(&data_type, &values);
        let from = cut.min(values.len());
        let slice = array.slice(from, values.len() - from);
        let bytes = column_bytes(&data_type, &slice);
        let back = read_column(&mut Reader::new(&bytes, BUDGET_BASE), &data_type, slice.len(), 0).unwrap();
        for (row, value) in values[from..].iter().enumerate() {
            prop_assert!(same(&Value::from_array(back.as_ref(), row), value));
        }
    }

    #[test]
    fn values_come_back((_, values) in column()) {
        let mut bytes = Vec::new();
        values.iter().for_each(|value| encode_value(&mut bytes, value));
        let mut rest = &bytes[..];
        for value in &values {
            let read = decode_value(&mut rest).unwrap();
            prop_assert!(same(&read, value), "{:?} {:?}", read, value);
        }
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn integers_come_back(values in prop::collection::vec(prop_oneof![any::<i64>(), -3..3i64, Just(i64::MIN), Just(i64::MAX)], 0..50)) {
        let mut out = Writer::default();
        integers::write(&mut out, &values);
        let bytes = out.into_bytes();
        prop_assert_eq!(integers::read(&mut Reader::new(&bytes, 1 << 20), values.len()).unwrap(), values);
    }

    #[test]
    fn damaged_batches_are_errors_or_batches(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        truncate in any::<bool>(),
    ) {
        let mut bytes = encode_batch(&flights(7));
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if truncate {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(batch) = decode_within(&bytes, TEST_BUDGET) {
            // What still reads as a batch is a whole one.
            prop_assert_eq!(batch.columns.num_rows(), batch.event_times.len());
            let _ = encode_batch(&batch);
        }
    }

    #[test]
    fn damaged_columns_are_errors_or_columns(
        (data_type, values) in column(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = column_bytes(&data_type, &array_of(&data_type, &values));
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(array) = read_column(&mut Reader::new(&bytes, TEST_BUDGET), &data_type, values.len(), 0) {
            prop_assert_eq!(array.len(), values.len());
            for row in 0..array.len() {
                let _ = Value::from_array(array.as_ref(), row);
            }
        }
    }

    #[test]
    fn random_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode_within(&bytes, TEST_BUDGET);
        let _ = decode_value(&mut &bytes[..]);
        if let Some(first) = bytes.first_mut() {
            *first = CODEC_VERSION;
        }
        let _ = decode_within(&bytes, TEST_BUDGET);
    }

    #[test]
    fn keys_order_as_their_values(a in key_values(), b in key_values()) {
        let (left, right) = (EntityKey::from_values(&a).unwrap(), EntityKey::from_values(&b).unwrap());
        prop_assert_eq!(left.cmp(&right), a.cmp(&b));
        prop_assert_eq!(left.to_values().unwrap(), a);
    }
}

/// Two key columns, as of one entity's type.
fn key_values() -> impl Strategy<Value = Vec<Value>> {
    let text = prop_oneof!["[a\u{0}\u{1}b]{0,3}", "\\PC{0,4}"].prop_map(Value::string);
    let number = prop_oneof![any::<i64>(), -2..2i64].prop_map(Value::Int);
    (text, number, any::<bool>(), any::<i32>(), any::<i64>()).prop_map(
        |(text, number, flag, date, time)| {
            vec![
                text,
                number,
                Value::Bool(flag),
                Value::Date(date),
                Value::Timestamp(time),
            ]
        },
    )
}
