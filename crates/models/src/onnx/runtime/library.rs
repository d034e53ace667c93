//! The runtime's shared library: which one it is, and that it is there before anything is asked of it.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use headwater_schema::Problem;
use ort::environment::Environment;
use ort::logging::LogLevel;

use super::super::network::unpanicked;

/// Where the environment names the library.
const PATH: &str = "ORT_DYLIB_PATH";

/// Kept for as long as the process runs: the runtime allows one, and not another after it.
static ENVIRONMENT: Mutex<Option<Environment>> = Mutex::new(None);

/// The environment that all sessions stand in. A library that wasn't found is looked for again when the next model is
/// loaded.
pub(super) fn environment() -> Result<Environment, Problem> {
    let mut kept = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(environment) = kept.as_ref() {
        return Ok(environment.clone());
    }
    let library = library();
    // The binding panics where a library is there that isn't the runtime's after all.
    let environment = unpanicked(|| open(&library))
        .unwrap_or_else(|| Err("It isn't one of ONNX Runtime's".into()))
        .map_err(|e| missing(&library, &e))?;
    *kept = Some(environment.clone());
    Ok(environment)
}

/// The one that is named, else the one that the system's loader finds.
fn library() -> PathBuf {
    match std::env::var_os(PATH) {
        Some(path) if !path.is_empty() => path.into(),
        _ => format!(
            "{}onnxruntime{}",
            std::env::consts::DLL_PREFIX,
            std::env::consts::DLL_SUFFIX
        )
        .into(),
    }
}

fn open(library: &Path) -> Result<Environment, String> {
    let builder = ort::init_from(library).map_err(|e| e.to_string())?;
    let environment = builder
        .with_name("headwater")
        .with_telemetry(false)
        .build()
        .map_err(|e| e.to_string())?;
    // What it has to say comes as errors; it would say it on the standard error, too.
    environment.set_log_level(LogLevel::Fatal);
    Ok(environment)
}

fn missing(library: &Path, why: &str) -> Problem {
    Problem::external("engine-missing", "ONNX Runtime can't be loaded")
        .detail(format!("`{}`: {why}", library.display()))
        .hint(format!(
            "Set {PATH} to the library of version 1.{} or later, such as onnxruntime/capi/libonnxruntime.so.1.… of the Python package onnxruntime, and start the program again",
            ort::MINOR_VERSION
        ))
}
