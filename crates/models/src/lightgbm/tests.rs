//! Small models written by hand; the packages' own are compared in `crates/headwater/tests/clients`.

use crate::{Categories, Format, InputKind, LoadOptions, Predictor, Rows, Task, load};

const MODEL: &str = include_str!("small.txt");

fn model(text: &str) -> Box<dyn Predictor> {
    load(text.as_bytes(), &LoadOptions::default()).unwrap()
}

fn code(text: &str) -> &'static str {
    load(text.as_bytes(), &LoadOptions::default())
        .unwrap_err()
        .code
}

fn score(model: &dyn Predictor, row: &[f64]) -> f64 {
    model.predict(Rows::one(row).unwrap()).unwrap().scores[0]
}

#[test]
fn a_contract_says_what_the_file_says() {
    let model = model(MODEL);
    let contract = model.contract();
    assert_eq!(Format::sniff(MODEL.as_bytes()), Ok(Format::LightGbm));
    let names: Vec<&str> = contract.inputs.iter().map(|i| i.name.as_str()).collect();
    assert_eq!(names, ["amount", "country", "age"]);
    assert_eq!((contract.task, contract.scores), (Task::Binary, 1));
    let InputKind::Categorical(Categories::Labels(labels)) = &contract.inputs[1].kind else {
        panic!("{:?}", contract.inputs[1]);
    };
    assert_eq!(labels.get("pt"), Some(&2));
}

#[test]
fn rows_go_where_lightgbm_sends_them() {
    let model = model(MODEL);
    let near_zero = f64::from(1e-35f32);
    // Tree 0: amount <= −1e−35 (NaN is zero), then country in {1, 2}. Tree 1: age, NaN left. Tree 2: zero is missing.
    for (row, wanted) in [
        ([-1.0, 0.0, 5.0], 1.0 + 10.0 + 200.0),
        ([-near_zero, 1.0, 5.0], 2.0 + 10.0 + 100.0),
        ([f64::NAN, 0.0, 5.0], 4.0 + 10.0 + 100.0),
        ([0.0, f64::NAN, f64::NAN], 4.0 + 10.0 + 100.0),
        ([1.0, 2.9, 6.0], 2.0 + 20.0 + 200.0),
        ([1.0, -0.5, 6.0], 4.0 + 20.0 + 200.0),
        ([9.0, -1.0, 5.0f64.next_up()], 4.0 + 20.0 + 100.0),
        ([9.0, 4e9, 5.0], 4.0 + 10.0 + 100.0),
    ] {
        assert_eq!(score(model.as_ref(), &row), wanted, "{row:?}");
    }
}

#[test]
fn fewer_iterations_use_the_first_trees() {
    let options = LoadOptions {
        iterations: Some(1),
        ..LoadOptions::default()
    };
    let first = load(MODEL.as_bytes(), &options).unwrap();
    assert_eq!(score(first.as_ref(), &[-1.0, 0.0, 5.0]), 1.0);
}

#[test]
fn a_random_forest_is_averaged_after_its_scores() {
    let text = MODEL.replace(
        "objective=binary sigmoid:1",
        "objective=regression\naverage_output",
    );
    let model = model(&text);
    let row = [-1.0, 0.0, 5.0];
    let prediction = model.predict(Rows::one(&row).unwrap()).unwrap();
    assert_eq!(
        (prediction.scores[0], prediction.outputs[0]),
        (211.0, 211.0 / 3.0)
    );
}

#[test]
fn a_line_falls_back_where_an_input_is_missing() {
    let lines = "is_linear=1\nleaf_const=10 20 40\nnum_features=2 0 1\nleaf_features=0 2   2 \nleaf_coeff=0.5 2   -1 ";
    let text = MODEL.replacen("is_linear=0", lines, 1);
    let options = LoadOptions {
        iterations: Some(1),
        ..LoadOptions::default()
    };
    let model = load(text.as_bytes(), &options).unwrap();
    assert_eq!(score(model.as_ref(), &[-4.0, 0.0, 3.0]), 10.0 - 2.0 + 6.0);
    assert_eq!(score(model.as_ref(), &[-4.0, 0.0, f64::NAN]), 1.0);
    assert_eq!(score(model.as_ref(), &[1.0, 1.0, f64::NAN]), 20.0);
    let row = [1.0, 1.0, 1.0];
    assert_eq!(
        model.explain(Rows::one(&row).unwrap()).unwrap_err().code,
        "model-explain"
    );
}

#[test]
fn what_cannot_be_served_is_refused_when_it_is_loaded() {
    assert_eq!(
        code(&MODEL.replace("version=v4", "version=v9")),
        "model-unsupported"
    );
    assert_eq!(
        code(&MODEL.replace("binary sigmoid:1", "cox")),
        "model-unsupported"
    );
    assert_eq!(code(&MODEL.replace("end of trees", "")), "model-corrupt");
    assert_eq!(
        code(&MODEL.replace("left_child=-1", "left_child=1")),
        "model-corrupt"
    );
    assert_eq!(
        code(&MODEL.replace("split_feature=0 1", "split_feature=0 7")),
        "model-corrupt"
    );
    assert_eq!(
        code(&MODEL.replace("num_leaves=3", "num_leaves=99999999")),
        "model-limit"
    );
    assert_eq!(
        code(&MODEL.replace("leaf_value=1 2 4", "leaf_value=1 2")),
        "model-corrupt"
    );
    assert_eq!(code(&MODEL[..MODEL.len() / 2]), "model-corrupt");
    assert_eq!(code("{}"), "model-format");
}

#[test]
fn shapes_are_checked() {
    let model = model(MODEL);
    let row = [1.0, 2.0];
    assert_eq!(
        model.predict(Rows::one(&row).unwrap()).unwrap_err().code,
        "model-shape"
    );
    assert_eq!(Rows::new(&[1.0; 4], 3).unwrap_err().code, "model-shape");
    let rows = Rows::new(&[], 3).unwrap();
    assert!(model.predict(rows).unwrap().outputs.is_empty());
}
