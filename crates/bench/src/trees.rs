//! Tree models beside the package that trained them: LightGBM from Python, and ONNX Runtime where it is installed, in one
//! run, on one core. 500 trees with 31 leaves; 20,000 rows at once, and rows one by one.
//!
//! Batches are counted in seconds of the processor's own time, so that what else runs on the machine weighs on neither side.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use headwater_models::{LoadOptions, Predictor, Rows, load};
use headwater_schema::Problem;
use serde_json::Value as Json;

use crate::failed;
use crate::machine::on_core;

const BATCHES: usize = 9;
const SINGLE: usize = 20_000;

/// Prints both sides of each shape.
pub fn measure(python: &str) -> Result<(), Problem> {
    let folder = tempfile::tempdir().map_err(failed)?;
    let others = on_core(0, || others(python, folder.path()))?;
    for shape in ["numbers", "gaps", "categories"] {
        let own = on_core(0, || own(&folder.path().join(shape)))?;
        println!(
            "500 trees with 31 leaves, {shape}: {:.0} rows/s of one core, one row in {:.1} µs (median)",
            own.0, own.1
        );
        for other in others.iter().filter(|o| o["shape"] == shape) {
            let number = |key: &str| other[key].as_f64().unwrap_or(f64::NAN);
            println!(
                "  {}: {:.0} rows/s, one row in {:.1} µs: {:.1} and {:.1} times as long",
                other["peer"].as_str().unwrap_or_default(),
                number("bulk"),
                number("single_us"),
                own.0 / number("bulk"),
                number("single_us") / own.1
            );
        }
    }
    Ok(())
}

/// What the packages took; leaves their models behind.
fn others(python: &str, folder: &Path) -> Result<Vec<Json>, Problem> {
    let output = Command::new(python)
        .args(["-W", "ignore", "-c", include_str!("trees.py")])
        .arg(folder)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| failed(format!("{python}: {e}")))?;
    if !output.status.success() {
        return Err(failed("the script that trains models failed").hint(
            "Give `--python` an interpreter that has lightgbm and numpy; onnxruntime and onnxmltools are measured if it has them",
        ));
    }
    let lines = output
        .stdout
        .split(|b| *b == b'\n')
        .filter(|l| !l.is_empty());
    lines
        .map(|line| serde_json::from_slice(line).map_err(failed))
        .collect()
}

fn doubles(path: &Path) -> Result<Vec<f64>, Problem> {
    let bytes = std::fs::read(path).map_err(failed)?;
    let (chunks, _) = bytes.as_chunks::<8>();
    Ok(chunks.iter().map(|c| f64::from_le_bytes(*c)).collect())
}

/// Rows a second in batches, and microseconds for one row.
fn own(folder: &Path) -> Result<(f64, f64), Problem> {
    let bytes = std::fs::read(folder.join("model.txt")).map_err(failed)?;
    let model = load(&bytes, &LoadOptions::default())?;
    let values = doubles(&folder.join("rows.f64"))?;
    let rows = Rows::new(&values, model.contract().inputs.len())?;
    let mut scores = vec![0.0; rows.len()];
    let mut bulk = Vec::with_capacity(BATCHES);
    for _ in 0..BATCHES {
        let began = processor_seconds()?;
        model.scores(rows, &mut scores)?;
        bulk.push(rows.len() as f64 / (processor_seconds()? - began));
    }
    if scores != doubles(&folder.join("scores.f64"))? {
        return Err(failed("the scores aren't LightGBM's"));
    }
    Ok((median(bulk), median(single(model.as_ref(), rows)?)))
}

fn single(model: &dyn Predictor, rows: Rows<'_>) -> Result<Vec<f64>, Problem> {
    let mut score = [0.0];
    (0..SINGLE)
        .map(|index| {
            let row = Rows::one(rows.row(index % rows.len()))?;
            let began = Instant::now();
            model.scores(row, &mut score)?;
            Ok(began.elapsed().as_secs_f64() * 1e6)
        })
        .collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What this thread has had of the processor.
fn processor_seconds() -> Result<f64, Problem> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").map_err(failed)?;
    let nanoseconds = text.split(' ').next().and_then(|n| n.parse::<f64>().ok());
    Ok(nanoseconds.ok_or_else(|| failed("no times of threads"))? / 1e9)
}
