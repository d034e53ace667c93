//! Tensors from JSON and from raw bytes, held to each other for every type; and what is refused.

use headwater_schema::Value;
use serde_json::{Value as Json, json};

use super::{Head, rows};
use crate::backend::InputRows;

fn head(datatype: &str, shape: &[i64]) -> Head {
    Head::new("x", datatype, shape, 1000).unwrap()
}

fn refused(datatype: &str, shape: &[i64], data: &Json) -> bool {
    head(datatype, shape).of_json(data).is_err()
}

/// Of every type, values as JSON has them and as bytes have them.
#[test]
fn json_and_raw_bytes_are_the_same_for_every_type() {
    let cases: [(&str, Json, Vec<u8>); 13] = [
        ("BOOL", json!([true, false]), vec![1, 0]),
        ("UINT8", json!([0, 255]), vec![0, 255]),
        ("UINT16", json!([1, 65535]), vec![1, 0, 255, 255]),
        (
            "UINT32",
            json!([1, u32::MAX]),
            vec![1, 0, 0, 0, 255, 255, 255, 255],
        ),
        (
            "UINT64",
            json!([7, u64::MAX]),
            [7_u64.to_le_bytes(), u64::MAX.to_le_bytes()].concat(),
        ),
        ("INT8", json!([-128, 127]), vec![128, 127]),
        (
            "INT16",
            json!([-2, 3]),
            [(-2_i16).to_le_bytes(), 3_i16.to_le_bytes()].concat(),
        ),
        (
            "INT32",
            json!([-2, i32::MAX]),
            [(-2_i32).to_le_bytes(), i32::MAX.to_le_bytes()].concat(),
        ),
        (
            "INT64",
            json!([i64::MIN, i64::MAX]),
            [i64::MIN.to_le_bytes(), i64::MAX.to_le_bytes()].concat(),
        ),
        ("FP16", json!([0.333, -2.0]), vec![0x54, 0x35, 0x00, 0xc0]),
        (
            "FP32",
            json!([0.1, null]),
            [0.1_f32.to_le_bytes(), f32::NAN.to_le_bytes()].concat(),
        ),
        (
            "FP64",
            json!([0.1, null]),
            [0.1_f64.to_le_bytes(), f64::NAN.to_le_bytes()].concat(),
        ),
        (
            "BYTES",
            json!(["é", ""]),
            vec![2, 0, 0, 0, 0xc3, 0xa9, 0, 0, 0, 0],
        ),
    ];
    for (datatype, data, bytes) in cases {
        let of_json = head(datatype, &[2, 1]).of_json(&data).unwrap();
        let nested = json!([[data[0]], [data[1]]]);
        assert_eq!(
            head(datatype, &[2, 1]).of_json(&nested).unwrap().values,
            of_json.values
        );
        let raw = head(datatype, &[2, 1]).of_bytes(&bytes).unwrap();
        assert_eq!(raw.values, of_json.values, "{datatype}");
        assert!(
            head(datatype, &[2]).of_bytes(&bytes[1..]).is_err(),
            "{datatype}"
        );
        let longer = [&bytes[..], &bytes[..]].concat();
        assert!(
            head(datatype, &[2]).of_bytes(&longer).is_err(),
            "{datatype}"
        );
        assert!(refused(datatype, &[3], &data), "{datatype}");
    }
}

#[test]
fn what_an_element_is_not_is_refused() {
    for (datatype, element) in [
        ("BOOL", json!(1)),
        ("UINT8", json!(256)),
        ("UINT8", json!(-1)),
        ("INT8", json!(128)),
        ("INT32", json!(1.0)),
        ("INT64", json!(9_223_372_036_854_775_808_u64)),
        ("INT64", json!(null)),
        ("FP16", json!(70000)),
        ("FP32", json!(1e39)),
        ("FP64", json!("1")),
        ("BYTES", json!(1)),
        ("BYTES", json!(["a"])),
    ] {
        assert!(
            refused(datatype, &[1], &json!([element])),
            "{datatype} {element}"
        );
    }
    assert!(head("BOOL", &[1]).of_bytes(&[2]).is_err());
    assert!(head("BYTES", &[1]).of_bytes(&[1, 0, 0, 0, 255]).is_err());
    assert!(
        head("BYTES", &[1])
            .of_bytes(&[255, 255, 255, 255, 65])
            .is_err()
    );
    for nested in [
        json!([[1.0, 2.0]]),
        json!([[1.0], 2.0]),
        json!([1.0, [2.0]]),
        json!([[[1.0]], [[2.0]]]),
        json!({}),
    ] {
        assert!(refused("FP64", &[2, 1], &nested), "{nested}");
    }
    for shape in [&[-1][..], &[1001], &[i64::MAX, i64::MAX]] {
        assert!(Head::new("x", "FP64", shape, 1000).is_err(), "{shape:?}");
    }
    assert!(Head::new("x", "BF16", &[1], 1000).is_err());
}

#[test]
fn rows_are_made_of_one_tensor_or_of_columns() {
    let tensor = |name: &str, shape: &[i64], data: Json| {
        let head = Head::new(name, "INT32", shape, 1000).unwrap();
        head.of_json(&data).unwrap()
    };
    let int = Value::Int;
    let InputRows::Vectors(one) = rows(vec![tensor("x", &[2, 2], json!([1, 2, 3, 4]))], 9).unwrap()
    else {
        panic!("no vectors");
    };
    assert_eq!(one, [[int(1), int(2)], [int(3), int(4)]]);
    let columns = vec![
        tensor("b", &[2], json!([1, 2])),
        tensor("a", &[2, 1], json!([3, 4])),
    ];
    let InputRows::Named { names, rows: named } = rows(columns, 9).unwrap() else {
        panic!("no columns");
    };
    assert_eq!(names, ["b", "a"]);
    assert_eq!(named, [[int(1), int(3)], [int(2), int(4)]]);
    let code = |tensors| rows(tensors, 2).map(drop).unwrap_err().code;
    assert_eq!(code(Vec::new()), "no-rows");
    assert_eq!(code(vec![tensor("x", &[3], json!([1, 2, 3]))]), "limit");
    let twice = vec![tensor("x", &[1], json!([1])), tensor("x", &[1], json!([1]))];
    assert_eq!(code(twice), "invalid-tensor");
    let uneven = vec![
        tensor("x", &[1], json!([1])),
        tensor("y", &[2], json!([1, 2])),
    ];
    assert_eq!(code(uneven), "invalid-tensor");
    assert_eq!(
        code(vec![tensor("x", &[1, 1, 1], json!([1]))]),
        "invalid-tensor"
    );
}
