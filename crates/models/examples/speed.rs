//! Speed: debug.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "x"
)]
use headwater_models::{LoadOptions, Rows, load};
use std::time::Instant;
fn cpu() -> u64 {
    let s = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    s.split(' ').next().unwrap().parse().unwrap()
}
fn main() {
    let f = std::env::args().nth(1).unwrap();
    let model = load(
        &std::fs::read(format!("{f}/speed.txt")).unwrap(),
        &LoadOptions::default(),
    )
    .unwrap();
    let b = std::fs::read(format!("{f}/speed.f64")).unwrap();
    let v: Vec<f64> = b
        .as_chunks::<8>()
        .0
        .iter()
        .map(|c| f64::from_le_bytes(*c))
        .collect();
    let b = std::fs::read(format!("{f}/speed.scores")).unwrap();
    let want: Vec<f64> = b
        .as_chunks::<8>()
        .0
        .iter()
        .map(|c| f64::from_le_bytes(*c))
        .collect();
    let n = model.contract().inputs.len();
    let rows = Rows::new(&v, n).unwrap();
    let mut out = vec![0.0; rows.len()];
    let mut best = f64::MAX;
    for _ in 0..10 {
        let t = cpu();
        model.scores(rows, &mut out).unwrap();
        best = best.min((cpu() - t) as f64 / 1e9);
    }
    println!(
        "bulk {} rows/s, equal {}",
        rows.len() as f64 / best,
        out == want
    );
    let mut ts = Vec::new();
    let mut one = [0.0];
    for i in 0..4000 {
        let r = Rows::one(rows.row(i % rows.len())).unwrap();
        let t = Instant::now();
        model.scores(r, &mut one).unwrap();
        ts.push(t.elapsed().as_nanos());
    }
    ts.sort();
    println!(
        "single ns median {} p10 {}",
        ts[ts.len() / 2],
        ts[ts.len() / 10]
    );
}
