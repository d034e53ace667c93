//! What an engine measures of the machine that it runs on, for whoever looks at it from another.

use headwater_api::backend::Measure;

use super::gauge;
use crate::Engine;

pub(super) fn machine(engine: &Engine, out: &mut Vec<Measure>) {
    let micros = engine.env.clock.now();
    out.push(gauge(
        "clock_seconds",
        "The clock that arrival times are taken from, as seconds since 1970.",
        micros as f64 / 1e6,
    ));
    // A disk that can't be asked is told of by whatever writes to it.
    if let Ok(free) = engine.env.files.free_bytes(engine.data.root()) {
        out.push(gauge(
            "data_free_bytes",
            "Bytes that are free where the data folder is.",
            free as f64,
        ));
    }
    out.push(gauge(
        "start_repairs",
        "What had to be repaired when the data folder was opened.",
        engine.report().repairs.len() as f64,
    ));
}
