//! Every function as C calls it, held to what the library answers in Rust; and panics, which cross no border.
#![allow(clippy::panic, clippy::unwrap_used, reason = "tests stop loudly")]

use std::ptr::{null, null_mut};

use super::*;

const BUNDLE: &[u8] = include_bytes!("../../testkit/bundles/v1/bundle");
const REQUEST: &str =
    r#"{"entities": [{"person": "ada"}, {"person": "eve"}], "as_of": 1769855000000000}"#;
const PURCHASE: &str =
    r#"[{"id": "n1", "who": "ada", "amount": 2.5, "count": 3, "time": 1769854999000000}]"#;

/// A handle that is closed when it goes.
struct Handle(*mut HwEdge);

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: it came from opening and is closed once.
        unsafe { hw_edge_close(self.0) };
    }
}

/// A text that a call gave, given back; none where it gave none.
fn taken(text: *mut c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: a call gave it, and it is freed afterwards, once.
    let said = unsafe { CStr::from_ptr(text) }.to_str().unwrap().to_owned();
    // SAFETY: as above.
    unsafe { hw_edge_free(text) };
    Some(said)
}

fn open(bytes: &[u8]) -> (c_int, Handle, Option<String>) {
    let (mut edge, mut error) = (null_mut(), null_mut());
    // SAFETY: the bytes and both places are there until the call returns.
    let status = unsafe { hw_edge_open(bytes.as_ptr(), bytes.len(), &mut edge, &mut error) };
    (status, Handle(edge), taken(error))
}

fn opened() -> Handle {
    let (status, handle, error) = open(BUNDLE);
    assert_eq!((status, error), (HW_OK, None));
    handle
}

/// A call that takes one text.
type Ask =
    unsafe extern "C" fn(*const HwEdge, *const c_char, *mut *mut c_char, *mut *mut c_char) -> c_int;
/// What a call says: its status, its answer, what went wrong.
type Said = (c_int, Option<String>, Option<String>);

fn ask(call: Ask, handle: &Handle, request: &str) -> Said {
    let request = CString::new(request).unwrap();
    let (mut said, mut error) = (null_mut(), null_mut());
    // SAFETY: the handle is open or null; the text and both places are there until the call returns.
    let status = unsafe { call(handle.0, request.as_ptr(), &mut said, &mut error) };
    (status, taken(said), taken(error))
}

fn about(handle: &Handle) -> Said {
    let (mut said, mut error) = (null_mut(), null_mut());
    // SAFETY: the handle is open or null; both places are there until the call returns.
    let status = unsafe { hw_edge_about(handle.0, &mut said, &mut error) };
    (status, taken(said), taken(error))
}

fn add(handle: &Handle, rows: &str, revise: c_int) -> Said {
    let [contract, rows] = ["every", rows].map(|text| CString::new(text).unwrap());
    let (contract, rows) = (contract.as_ptr(), rows.as_ptr());
    let (mut said, mut error) = (null_mut(), null_mut());
    // SAFETY: the handle is open; the texts and both places are there until the call returns.
    let status =
        unsafe { hw_edge_add_facts(handle.0, contract, rows, revise, &mut said, &mut error) };
    (status, taken(said), taken(error))
}

fn retract(handle: &Handle, ids: &str) -> Said {
    let [contract, ids] = ["every", ids].map(|text| CString::new(text).unwrap());
    let (mut said, mut error) = (null_mut(), null_mut());
    let (contract, ids) = (contract.as_ptr(), ids.as_ptr());
    // SAFETY: the handle is open; the texts and both places are there until the call returns.
    let status = unsafe { hw_edge_retract(handle.0, contract, ids, &mut said, &mut error) };
    (status, taken(said), taken(error))
}

/// What is said where it goes as it does in Rust.
fn as_in_rust(answered: Result<String, Problem>) -> Said {
    match answered {
        Ok(said) => (HW_OK, Some(said), None),
        Err(problem) => {
            let status = match problem.blame {
                Blame::User => HW_USER,
                Blame::External => HW_EXTERNAL,
                Blame::Internal => HW_INTERNAL,
            };
            (status, None, Some(problem_json(&problem)))
        }
    }
}

#[test]
fn answers_in_json_are_those_of_the_library() {
    let (handle, edge) = (opened(), Edge::open(BUNDLE).unwrap());
    assert_eq!(about(&handle), as_in_rust(Ok(edge.about_json())));
    let explained = REQUEST.replacen('{', r#"{"explain": true, "#, 1);
    for request in [
        REQUEST,
        &explained,
        "{}",
        "nothing",
        r#"{"entities": [{"persn": "ada"}]}"#,
    ] {
        let features = ask(hw_edge_features, &handle, request);
        assert_eq!(features, as_in_rust(edge.features_json(request)));
        let predicted = ask(hw_edge_predict, &handle, request);
        assert_eq!(predicted, as_in_rust(edge.predict_json(request)));
    }
    let answered = ask(hw_edge_predict, &handle, &explained).1.unwrap();
    assert!(answered.contains("explanations"), "{answered}");
}

#[test]
fn answers_in_numbers_are_those_of_the_library() {
    let (handle, edge) = (opened(), Edge::open(BUNDLE).unwrap());
    // SAFETY: the handle is open.
    let widths = unsafe { (hw_edge_inputs(handle.0), hw_edge_outputs(handle.0)) };
    assert_eq!(widths, (edge.inputs(), edge.outputs()));
    assert_eq!(widths, (1, 1));
    let bits = |numbers: &[f64]| -> Vec<u64> { numbers.iter().map(|n| n.to_bits()).collect() };
    let inputs = [2.5, f64::NAN, -1e9];
    let vectors = |outputs: &mut [f64], rows: usize| {
        let mut error = null_mut();
        let (out, room) = (outputs.as_mut_ptr(), outputs.len());
        // SAFETY: there are so many inputs and so much room as is said.
        let status = unsafe {
            hw_edge_predict_vectors(handle.0, inputs.as_ptr(), rows, out, room, &mut error)
        };
        (status, taken(error))
    };
    let (mut outputs, mut wanted) = ([0.0; 3], [0.0; 3]);
    assert_eq!(vectors(&mut outputs, 3), (HW_OK, None));
    edge.predict_vectors(&inputs, &mut wanted).unwrap();
    assert_eq!(bits(&outputs), bits(&wanted));
    assert!(outputs[0] != outputs[2] && outputs[0] != 0.0, "{outputs:?}");
    for (room, rows) in [(2, 3), (3, usize::MAX)] {
        let (status, error) = vectors(&mut outputs[..room], rows);
        let error = error.unwrap();
        assert_eq!(status, HW_USER);
        assert!(error.contains(r#""code":"model-shape""#), "{error}");
    }
    let numbers = |room: usize| {
        let request = CString::new(REQUEST).unwrap();
        let (mut outputs, mut count, mut error) = ([0.0; 2], 0, null_mut());
        let out = outputs.as_mut_ptr();
        // SAFETY: the text and the places are there until the call returns, with as much room as is said.
        let status = unsafe {
            let request = request.as_ptr();
            hw_edge_predict_numbers(handle.0, request, out, room, &mut count, &mut error)
        };
        (status, count, bits(&outputs), taken(error))
    };
    let wanted = bits(&edge.predict_numbers(REQUEST).unwrap());
    assert_eq!(numbers(2), (HW_OK, 2, wanted, None));
    let (status, count, untouched, error) = numbers(1);
    assert_eq!((status, count, untouched), (HW_USER, 2, bits(&[0.0; 2])));
    assert!(error.unwrap().contains("outputs_max"));
}

#[test]
fn facts_count_and_are_taken_back() {
    let (handle, edge) = (opened(), Edge::open(BUNDLE).unwrap());
    let features = || ask(hw_edge_features, &handle, REQUEST);
    let before = features();
    let revised = PURCHASE.replace("2.5", "7.5");
    for (rows, revise) in [
        (PURCHASE, false),
        (PURCHASE, false),
        (revised.as_str(), true),
        ("[", false),
    ] {
        let added = add(&handle, rows, c_int::from(revise));
        assert_eq!(
            added,
            as_in_rust(edge.add_facts_json("every", rows, revise))
        );
        assert_eq!(features(), as_in_rust(edge.features_json(REQUEST)));
    }
    assert_ne!(features(), before);
    for ids in [r#"["n1", "none"]"#, "n1"] {
        let gone = retract(&handle, ids);
        assert_eq!(gone, as_in_rust(edge.retract_json("every", ids)));
        assert_eq!(features(), as_in_rust(edge.features_json(REQUEST)));
    }
    let (none, again) = (retract(&handle, r#"["n1"]"#), add(&handle, PURCHASE, 0));
    assert_eq!(none.1.unwrap(), r#"{"retracted":0,"unknown":["n1"]}"#);
    assert!(again.1.unwrap().contains(r#""accepted":1"#));
}

#[test]
fn what_is_no_bundle_no_text_or_null_is_told() {
    let damaged = &BUNDLE[..BUNDLE.len() / 2];
    for bytes in [&b"no bundle"[..], damaged, &[]] {
        let (status, handle, error) = open(bytes);
        let wanted = as_in_rust(Edge::open(bytes).map(|_| String::new()));
        assert_eq!((status, error), (wanted.0, wanted.2));
        assert!(status != HW_OK && handle.0.is_null());
    }
    let nobody = Handle(null_mut());
    let is_null = |(status, said, error): Said, name: &str| {
        let error = error.unwrap();
        assert_eq!((status, said), (HW_USER, None), "{error}");
        let code = error.contains(r#""code":"null-argument""#);
        assert!(code && error.contains(&format!("`{name}`")), "{error}");
    };
    is_null(about(&nobody), "handle");
    is_null(ask(hw_edge_predict, &nobody, REQUEST), "handle");
    is_null(ask(hw_edge_features, &nobody, REQUEST), "handle");
    is_null(add(&nobody, PURCHASE, 0), "handle");
    is_null(retract(&nobody, "[]"), "handle");
    // SAFETY: what is null may be null.
    unsafe {
        assert_eq!((hw_edge_inputs(null()), hw_edge_outputs(null())), (0, 0));
        hw_edge_free(null_mut());
        hw_edge_close(null_mut());
        // Nobody has to hear what went wrong, nor to take an answer.
        let handle = opened();
        let (mut said, quiet) = (null_mut(), null_mut());
        let status = hw_edge_predict(handle.0, null(), &mut said, quiet);
        assert_eq!((status, taken(said)), (HW_USER, None));
        assert_eq!(hw_edge_about(handle.0, null_mut(), quiet), HW_USER);
        let status = hw_edge_open(BUNDLE.as_ptr(), BUNDLE.len(), null_mut(), quiet);
        assert_eq!(status, HW_USER);
        let (latin, mut error) = (c"caf\xe9", null_mut());
        let status = hw_edge_predict(handle.0, latin.as_ptr(), &mut said, &mut error);
        assert_eq!(status, HW_USER);
        assert!(taken(error).unwrap().contains("isn't UTF-8"));
    }
}

#[test]
fn a_panic_stays_here_and_ends_its_handle_alone() {
    let (handle, other) = (opened(), opened());
    let mut error = null_mut();
    // SAFETY: the handle is open, and the place is there until the call returns.
    let status = unsafe { with(handle.0, &mut error, |_| panic!("as it is meant to")) };
    let told = taken(error).unwrap();
    assert_eq!(status, HW_INTERNAL);
    assert!(told.contains(r#""code":"panic""#), "{told}");
    for call in [hw_edge_predict as Ask, hw_edge_features] {
        let (status, said, error) = ask(call, &handle, REQUEST);
        assert_eq!((status, said), (HW_INTERNAL, None));
        assert!(error.unwrap().contains("an earlier call"));
        assert_eq!(ask(call, &other, REQUEST).0, HW_OK);
    }
    // While opening there is no handle yet.
    let mut error = null_mut();
    // SAFETY: the place is there until the call returns.
    let opening = unsafe { answer(&mut error, || panic!("as it is meant to")) };
    assert_eq!(opening, (HW_INTERNAL, true));
    assert!(taken(error).unwrap().contains("report it"));
}
