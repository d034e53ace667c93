//! `headwater-edge` for C: the functions of `include/headwater_edge.h`, which says what each does and who owns what.
//!
//! Nothing but the border is here. No panic crosses it: what panics is answered as an internal problem, and the handle
//! answers nothing more. Every pointer is checked for null; what else must hold of pointers is the caller's promise,
//! and each unsafe block names it.

use std::ffi::{CStr, CString, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use headwater_edge::{Edge, problem_json};
use headwater_schema::{Blame, Problem};

/// Done.
pub const HW_OK: c_int = 0;
/// The caller asked for something wrong.
pub const HW_USER: c_int = 1;
/// The bundle, the journal or the disk can't be used.
pub const HW_EXTERNAL: c_int = 2;
/// A bug of the library.
pub const HW_INTERNAL: c_int = 3;
/// The version of the functions and their meaning.
const ABI: u32 = 1;

/// What C holds of an opened bundle.
pub struct HwEdge {
    edge: Edge,
    /// Something panicked: what it left behind isn't known.
    broken: AtomicBool,
}

/// Text of the caller.
///
/// # Safety
///
/// `text` is null, or points at bytes that end with a zero and stay as they are until the call returns.
unsafe fn text<'a>(name: &str, text: *const c_char) -> Result<&'a str, Problem> {
    if text.is_null() {
        return Err(null(name));
    }
    // SAFETY: it isn't null, and the caller promises a zero at its end and that it stays.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|e| {
        Problem::user("malformed-request", format!("`{name}` isn't UTF-8"))
            .field(name)
            .detail(e)
    })
}

fn null(name: &str) -> Problem {
    Problem::user("null-argument", format!("`{name}` is a null pointer"))
        .field(name)
        .hint("see headwater_edge.h for what may be null")
}

/// Puts a value where the caller wants it.
///
/// # Safety
///
/// `place` is null or may be written to.
unsafe fn put<T>(name: &str, place: *mut T, value: T) -> Result<(), Problem> {
    if place.is_null() {
        return Err(null(name));
    }
    // SAFETY: it isn't null, and the caller promises that it may be written to.
    unsafe { place.write(value) };
    Ok(())
}

/// Gives the caller a text of its own.
///
/// # Safety
///
/// As [`put`].
unsafe fn put_text(name: &str, place: *mut *mut c_char, said: String) -> Result<(), Problem> {
    if place.is_null() {
        return Err(null(name));
    }
    let said = CString::new(said)
        .map_err(|e| Problem::internal("answer", "an answer holds a zero").detail(e))?;
    // SAFETY: the promise of this function is that of `put`.
    unsafe { put(name, place, said.into_raw()) }
}

/// Runs a call: its status, with what went wrong told to whoever wants to know.
///
/// # Safety
///
/// `error` is null or may be written to.
unsafe fn answer(
    error: *mut *mut c_char,
    act: impl FnOnce() -> Result<(), Problem>,
) -> (c_int, bool) {
    if !error.is_null() {
        // SAFETY: it isn't null, and the caller promises that it may be written to.
        unsafe { error.write(std::ptr::null_mut()) };
    }
    let (done, panicked) = match catch_unwind(AssertUnwindSafe(act)) {
        Ok(done) => (done, false),
        Err(_) => {
            let problem = Problem::internal("panic", "the library broke");
            (
                Err(problem.hint("close the handle, open it again, and report it")),
                true,
            )
        }
    };
    let Err(problem) = done else {
        return (HW_OK, panicked);
    };
    if !error.is_null() {
        let said = CString::new(problem_json(&problem)).unwrap_or_default();
        // SAFETY: as above.
        unsafe { error.write(said.into_raw()) };
    }
    let status = match problem.blame {
        Blame::User => HW_USER,
        Blame::External => HW_EXTERNAL,
        Blame::Internal => HW_INTERNAL,
    };
    (status, panicked)
}

/// Runs a call on a handle.
///
/// # Safety
///
/// `handle` is null, or came from opening and hasn't been closed; `error` is null or may be written to.
unsafe fn with(
    handle: *const HwEdge,
    error: *mut *mut c_char,
    act: impl FnOnce(&Edge) -> Result<(), Problem>,
) -> c_int {
    // SAFETY: it is null, or a handle that lives until it is closed, which the caller promises not to do meanwhile.
    let held = unsafe { handle.as_ref() };
    let run = || {
        let held = held.ok_or_else(|| null("handle"))?;
        if held.broken.load(Ordering::Acquire) {
            return Err(
                Problem::internal("panic", "the library broke in an earlier call")
                    .hint("close the handle and open it again"),
            );
        }
        act(&held.edge)
    };
    // SAFETY: what holds of `error` here is what `answer` asks for.
    let (status, panicked) = unsafe { answer(error, run) };
    if let Some(held) = held.filter(|_| panicked) {
        held.broken.store(true, Ordering::Release);
    }
    status
}

fn boxed(edge: Edge) -> *mut HwEdge {
    let broken = AtomicBool::new(false);
    Box::into_raw(Box::new(HwEdge { edge, broken }))
}

/// The version of these functions.
#[unsafe(no_mangle)]
pub extern "C" fn hw_edge_abi() -> u32 {
    ABI
}

/// Opens a bundle that lies in memory.
///
/// # Safety
///
/// `bytes` points at `length` bytes; `out` and `error` may be written to, or are null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_edge_open(
    bytes: *const u8,
    length: usize,
    out: *mut *mut HwEdge,
    error: *mut *mut c_char,
) -> c_int {
    let act = || {
        if bytes.is_null() || out.is_null() {
            return Err(null(if out.is_null() { "out" } else { "bytes" }));
        }
        // SAFETY: it isn't null, and the caller promises `length` bytes there.
        let bytes = unsafe { std::slice::from_raw_parts(bytes, length) };
        let edge = Edge::open(bytes)?;
        // SAFETY: the caller promises that `out` may be written to.
        unsafe { put("out", out, boxed(edge)) }
    };
    // SAFETY: the caller promises that `error` is null or may be written to.
    unsafe { answer(error, act) }.0
}

/// Opens the bundle of a file, with a journal where one is named.
///
/// # Safety
///
/// `path`, and `journal` unless it is null, are texts that end with a zero; `out` and `error` may be written to, or are
/// null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_edge_open_file(
    path: *const c_char,
    journal: *const c_char,
    out: *mut *mut HwEdge,
    error: *mut *mut c_char,
) -> c_int {
    let act = || {
        if out.is_null() {
            return Err(null("out"));
        }
        // SAFETY: the caller promises texts.
        let path = unsafe { text("path", path) }?;
        let journal = match journal.is_null() {
            true => None,
            // SAFETY: as above.
            false => Some(unsafe { text("journal", journal) }?),
        };
        let edge = Edge::open_file(Path::new(path), journal.map(Path::new))?;
        // SAFETY: the caller promises that `out` may be written to.
        unsafe { put("out", out, boxed(edge)) }
    };
    // SAFETY: the caller promises that `error` is null or may be written to.
    unsafe { answer(error, act) }.0
}

/// Closes a handle.
///
/// # Safety
///
/// `handle` is null, or came from opening and hasn't been closed; no other call uses it now or later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_edge_close(handle: *mut HwEdge) {
    if !handle.is_null() {
        // SAFETY: it came from `Box::into_raw` in opening, and the caller promises to close it once.
        let held = unsafe { Box::from_raw(handle) };
        // A panic while it goes must not cross the border; there is nobody left to tell.
        let _gone = catch_unwind(AssertUnwindSafe(|| drop(held)));
    }
}

/// Frees a text that a call gave.
///
/// # Safety
///
/// `text` is null, or came from a call here and hasn't been freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_edge_free(text: *mut c_char) {
    if !text.is_null() {
        // SAFETY: it came from `CString::into_raw` here, and the caller promises to free it once.
        drop(unsafe { CString::from_raw(text) });
    }
}

/// How many numbers a row of the model's inputs has; 0 of no handle.
///
/// # Safety
///
/// `handle` is null, or came from opening and hasn't been closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_edge_inputs(handle: *const HwEdge) -> usize {
    // SAFETY: the caller promises null or a handle that lives.
    unsafe { handle.as_ref() }.map_or(0, |held| held.edge.inputs())
}

/// How many numbers the answer to one row has; 0 of no handle.
///
/// # Safety
///
/// As [`hw_edge_inputs`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_edge_outputs(handle: *const HwEdge) -> usize {
    // SAFETY: the caller promises null or a handle that lives.
    unsafe { handle.as_ref() }.map_or(0, |held| held.edge.outputs())
}

/// What the bundle says of itself, in JSON.
///
/// # Safety
///
/// `handle` came from opening and hasn't been closed; `said` and `error` may be written to, or are null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_edge_about(
    handle: *const HwEdge,
    said: *mut *mut c_char,
    error: *mut *mut c_char,
) -> c_int {
    // SAFETY: the caller promises what `with` and `put_text` ask for.
    unsafe {
        with(handle, error, |edge| {
            put_text("answer", said, edge.about_json())
        })
    }
}

/// Features, asked and answered in JSON.
///
/// # Safety
///
/// As [`hw_edge_about`]; `request` is a text that ends with a zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_edge_features(
    handle: *const HwEdge,
    request: *const c_char,
    said: *mut *mut c_char,
    error: *mut *mut c_char,
) -> c_int {
    let act = |edge: &Edge| {
        // SAFETY: the caller promises a text.
        let request = unsafe { text("request", request) }?;
        // SAFETY: the caller promises that `said` may be written to.
        unsafe { put_text("answer", said, edge.features_json(request)?) }
    };
    // SAFETY: the caller promises what `with` asks for.
    unsafe { with(handle, error, act) }
}

/// Predictions, asked and answered in JSON.
///
/// # Safety
///
/// As [`hw_edge_features`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_edge_predict(
    handle: *const HwEdge,
    request: *const c_char,
    said: *mut *mut c_char,
    error: *mut *mut c_char,
) -> c_int {
    let act = |edge: &Edge| {
        // SAFETY: the caller promises a text.
        let request = unsafe { text("request", request) }?;
        // SAFETY: the caller promises that `said` may be written to.
        unsafe { put_text("answer", said, edge.predict_json(request)?) }
    };
    // SAFETY: the caller promises what `with` asks for.
    unsafe { with(handle, error, act) }
}

/// Predictions, asked in JSON and answered in numbers: one row after another.
///
/// # Safety
///
/// As [`hw_edge_features`]; `outputs` has room for `outputs_max` numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_edge_predict_numbers(
    handle: *const HwEdge,
    request: *const c_char,
    outputs: *mut f64,
    outputs_max: usize,
    outputs_count: *mut usize,
    error: *mut *mut c_char,
) -> c_int {
    let act = |edge: &Edge| {
        // SAFETY: the caller promises a text.
        let request = unsafe { text("request", request) }?;
        let numbers = edge.predict_numbers(request)?;
        // SAFETY: the caller promises that it may be written to.
        unsafe { put("outputs_count", outputs_count, numbers.len()) }?;
        if numbers.len() > outputs_max {
            return Err(too_small(numbers.len(), outputs_max));
        }
        if outputs.is_null() {
            return Err(null("outputs"));
        }
        // SAFETY: it isn't null, and the caller promises room for `outputs_max` numbers, which is enough.
        unsafe { outputs.copy_from_nonoverlapping(numbers.as_ptr(), numbers.len()) };
        Ok(())
    };
    // SAFETY: the caller promises what `with` asks for.
    unsafe { with(handle, error, act) }
}

fn too_small(needed: usize, room: usize) -> Problem {
    Problem::user("model-shape", "the place for the answer is too small")
        .field("outputs_max")
        .detail(format!("it holds {room} numbers, the answer has {needed}"))
        .hint("give room for each row's outputs: hw_edge_outputs tells how many one row has")
}

/// Predictions for rows of the model's own inputs.
///
/// # Safety
///
/// `handle` and `error` as in [`hw_edge_about`]; `inputs` points at `rows` times [`hw_edge_inputs`] numbers, and `outputs`
/// has room for `outputs_max` numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_edge_predict_vectors(
    handle: *const HwEdge,
    inputs: *const f64,
    rows: usize,
    outputs: *mut f64,
    outputs_max: usize,
    error: *mut *mut c_char,
) -> c_int {
    let act = |edge: &Edge| {
        if inputs.is_null() || outputs.is_null() {
            return Err(null(if inputs.is_null() {
                "inputs"
            } else {
                "outputs"
            }));
        }
        let needed = rows.saturating_mul(edge.outputs());
        if needed > outputs_max {
            return Err(too_small(needed, outputs_max));
        }
        let count = rows.checked_mul(edge.inputs());
        let count = count.filter(|n| *n <= isize::MAX as usize / size_of::<f64>());
        let count = count.ok_or_else(|| Problem::user("limit", "too many rows").field("rows"))?;
        // SAFETY: neither is null; the caller promises so many numbers there, and that nobody else uses the outputs
        // meanwhile.
        let (inputs, outputs) = unsafe {
            (
                std::slice::from_raw_parts(inputs, count),
                std::slice::from_raw_parts_mut(outputs, needed),
            )
        };
        edge.predict_vectors(inputs, outputs)
    };
    // SAFETY: the caller promises what `with` asks for.
    unsafe { with(handle, error, act) }
}

/// Takes facts of a contract: a JSON array of objects.
///
/// # Safety
///
/// As [`hw_edge_features`], for both texts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_edge_add_facts(
    handle: *const HwEdge,
    contract: *const c_char,
    rows: *const c_char,
    revise: c_int,
    said: *mut *mut c_char,
    error: *mut *mut c_char,
) -> c_int {
    let act = |edge: &Edge| {
        // SAFETY: the caller promises texts.
        let (contract, rows) = unsafe { (text("contract", contract)?, text("rows", rows)?) };
        if said.is_null() {
            return Err(null("answer"));
        }
        let added = edge.add_facts_json(contract, rows, revise != 0)?;
        // SAFETY: the caller promises that `said` may be written to.
        unsafe { put_text("answer", said, added) }
    };
    // SAFETY: the caller promises what `with` asks for.
    unsafe { with(handle, error, act) }
}

/// Takes facts back: a JSON array of their ids.
///
/// # Safety
///
/// As [`hw_edge_add_facts`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_edge_retract(
    handle: *const HwEdge,
    contract: *const c_char,
    fact_ids: *const c_char,
    said: *mut *mut c_char,
    error: *mut *mut c_char,
) -> c_int {
    let act = |edge: &Edge| {
        // SAFETY: the caller promises texts.
        let (contract, ids) = unsafe { (text("contract", contract)?, text("fact_ids", fact_ids)?) };
        if said.is_null() {
            return Err(null("answer"));
        }
        let told = edge.retract_json(contract, ids)?;
        // SAFETY: the caller promises that `said` may be written to.
        unsafe { put_text("answer", said, told) }
    };
    // SAFETY: the caller promises what `with` asks for.
    unsafe { with(handle, error, act) }
}

#[cfg(test)]
mod tests;
