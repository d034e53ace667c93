//! Compares predictions with those of the packages that trained the models: `compare FOLDER`.
//!
//! Each folder below holds `case.json` (`model`, `columns`, `family`, and how far answers may be off), the model, and rows,
//! scores, outputs and contributions as little-endian doubles; `rows.json` instead where a row holds text. Written
//! by `crates/headwater/tests/clients/models.py`.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program of tests, that reads files and stops loudly"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use headwater_models::{LoadOptions, Predictor, Rows, load};
use headwater_schema::Value;
use serde_json::Value as Json;

/// What was compared in one family, and the largest differences.
#[derive(Default)]
struct Found {
    models: usize,
    rows: usize,
    scores: usize,
    /// Units in the last place: of floats where the package computes with them.
    ulps_max: u64,
    unequal: usize,
    outputs_max: f64,
    explained: usize,
    contributions_max: f64,
    wrong: Vec<String>,
}

fn doubles(path: &Path) -> Option<Vec<f64>> {
    let bytes = std::fs::read(path).ok()?;
    let (chunks, _) = bytes.as_chunks::<8>();
    Some(chunks.iter().map(|c| f64::from_le_bytes(*c)).collect())
}

fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::String(text) => Value::string(text),
        Json::Number(n) => n
            .as_i64()
            .map_or_else(|| Value::Float(n.as_f64().unwrap()), Value::Int),
        other => panic!("{other} in a row"),
    }
}

/// Rows as numbers, or as values that the model's inputs make numbers of.
fn rows(folder: &Path, model: &dyn Predictor) -> Vec<f64> {
    if let Some(rows) = doubles(&folder.join("rows.f64")) {
        return rows;
    }
    let text = std::fs::read(folder.join("rows.json")).unwrap();
    let rows: Vec<Vec<Json>> = serde_json::from_slice(&text).unwrap();
    let inputs = &model.contract().inputs;
    let encode = |row: &Vec<Json>| -> Vec<f64> {
        let pairs = row.iter().zip(inputs);
        pairs
            .map(|(json, input)| input.encode(&value(json), &mut Vec::new()).unwrap())
            .collect()
    };
    rows.iter().flat_map(encode).collect()
}

/// How many numbers lie between two of them.
fn ulps(a: f64, b: f64, single: bool) -> u64 {
    if a == b || (a.is_nan() && b.is_nan()) {
        return 0;
    }
    let order = |x: f64| -> i64 {
        let bits = if single {
            i64::from((x as f32).to_bits() as i32)
        } else {
            x.to_bits() as i64
        };
        let top = if single {
            i64::from(i32::MIN)
        } else {
            i64::MIN
        };
        if bits < 0 {
            top.wrapping_sub(bits)
        } else {
            bits
        }
    };
    order(a).abs_diff(order(b))
}

/// The largest difference, against the largest number of its row.
fn apart(ours: &[f64], theirs: &[f64], width: usize) -> f64 {
    let mut most = 0f64;
    for (ours, theirs) in ours.chunks(width).zip(theirs.chunks(width)) {
        let scale = theirs.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
        for (a, b) in ours.iter().zip(theirs) {
            most = most.max(if a.is_nan() && b.is_nan() {
                0.0
            } else {
                (a - b).abs() / scale
            });
        }
    }
    most
}

fn compare(folder: &Path, found: &mut BTreeMap<String, Found>) {
    let case: Json =
        serde_json::from_slice(&std::fs::read(folder.join("case.json")).unwrap()).unwrap();
    let text = |key: &str| case[key].as_str().unwrap_or_default();
    let number = |key: &str| case[key].as_f64().unwrap_or(0.0);
    let found = found.entry(text("family").to_owned()).or_default();
    let bytes = std::fs::read(folder.join(text("model"))).unwrap();
    let iterations = case["iterations"].as_u64().map(|n| n as usize);
    let options = LoadOptions {
        iterations,
        ..LoadOptions::default()
    };
    let name = folder.file_name().unwrap().to_string_lossy().into_owned();
    let model = match load(&bytes, &options) {
        Ok(model) => model,
        Err(problem) => {
            found.wrong.push(format!("{name}: {problem}"));
            return;
        }
    };
    let contract = model.contract();
    let values = rows(folder, model.as_ref());
    let rows = Rows::new(&values, contract.inputs.len()).unwrap();
    let ours = model.predict(rows).unwrap();
    found.models += 1;
    found.rows += rows.len();
    let theirs = doubles(&folder.join("scores.f64")).expect("scores");
    let single = case["single"].as_bool().unwrap_or(false);
    let mut worst = 0;
    assert_eq!(ours.scores.len(), theirs.len(), "{name}: scores");
    for (a, b) in ours.scores.iter().zip(&theirs) {
        let off = ulps(*a, *b, single);
        worst = worst.max(off);
        found.unequal += usize::from(off > 0);
    }
    found.scores += theirs.len();
    found.ulps_max = found.ulps_max.max(worst);
    if worst as f64 > number("ulps") {
        found
            .wrong
            .push(format!("{name}: scores are {worst} ulp off"));
    }
    if let Some(theirs) = doubles(&folder.join("outputs.f64")) {
        assert_eq!(ours.outputs.len(), theirs.len(), "{name}: outputs");
        let off = apart(&ours.outputs, &theirs, contract.output_width());
        found.outputs_max = found.outputs_max.max(off);
        if off > number("outputs_off") {
            found.wrong.push(format!("{name}: outputs are {off:e} off"));
        }
    }
    let most = number("contributions_off");
    compare_parts(folder, model.as_ref(), rows, &ours.scores, most, found);
}

/// Contributions: whether they add up to the scores, and are the package's.
fn compare_parts(
    folder: &Path,
    model: &dyn Predictor,
    rows: Rows<'_>,
    scores: &[f64],
    most: f64,
    found: &mut Found,
) {
    let contract = model.contract();
    let name = folder.file_name().unwrap().to_string_lossy().into_owned();
    let width = contract.inputs.len() + 1;
    if contract.contributions.is_ok() {
        let parts = model.explain(rows).unwrap();
        let each = parts.chunks(width).zip(scores);
        let off = each.fold(0f64, |most, (parts, score)| {
            let scale = parts.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
            most.max((parts.iter().sum::<f64>() - score).abs() / scale)
        });
        if off > most {
            found.wrong.push(format!(
                "{name}: contributions add up to {off:e} beside the scores"
            ));
        }
    }
    if let Some(theirs) = doubles(&folder.join("contributions.f64")) {
        let ours = model.explain(rows).unwrap();
        assert_eq!(ours.len(), theirs.len(), "{name}: contributions");
        let off = apart(&ours, &theirs, width);
        found.contributions_max = found.contributions_max.max(off);
        found.explained += 1;
        if off > most {
            found
                .wrong
                .push(format!("{name}: contributions are {off:e} off"));
        }
    }
}

fn main() -> ExitCode {
    let folder = PathBuf::from(std::env::args().nth(1).expect("compare FOLDER"));
    let mut cases: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.join("case.json").exists())
        .collect();
    cases.sort();
    let mut families = BTreeMap::new();
    for case in &cases {
        compare(case, &mut families);
    }
    let mut fine = !families.is_empty();
    for (family, found) in &families {
        println!(
            "{family}: {} models, {} rows, {} scores: {} differ, by {} ulp at most; outputs within {:.1e}; contributions of {} models within {:.1e}",
            found.models,
            found.rows,
            found.scores,
            found.unequal,
            found.ulps_max,
            found.outputs_max,
            found.explained,
            found.contributions_max
        );
        for wrong in &found.wrong {
            println!("  {wrong}");
        }
        fine &= found.wrong.is_empty();
    }
    ExitCode::from(u8::from(!fine))
}
