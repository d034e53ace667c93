//! Targets of model files: whatever loads also scores, explains and says the same of a row alone and in a batch.

use headwater_models::{Format, LoadOptions, Predictor, Rows, load};
use headwater_serve::load_rules;

use super::Target;

/// Inputs of a model that is tried, so that a long list of columns costs no time.
const INPUTS_MAX: usize = 64;
/// Scores of one row that are tried.
const SCORES_MAX: usize = 64;
/// What rows hold, one after another.
const VALUES: [f64; 9] = [
    0.0,
    1.0,
    -1.5,
    7.0,
    f64::NAN,
    f64::INFINITY,
    -0.0,
    1e-36,
    3e9,
];

fn run(input: &[u8], format: Format) -> bool {
    let options = LoadOptions {
        format: Some(format),
        ..LoadOptions::default()
    };
    match load(input, &options) {
        Ok(model) => {
            try_rows(model.as_ref());
            true
        }
        Err(_) => false,
    }
}

/// Rules refuse rows that don't have their types.
fn run_rules(input: &[u8]) -> bool {
    match load_rules(input) {
        Ok(model) => {
            try_rows_that_fit(model.as_ref());
            true
        }
        Err(_) => false,
    }
}

/// Graphs refuse fractions where they take whole numbers.
fn run_onnx(input: &[u8]) -> bool {
    let options = LoadOptions {
        format: Some(Format::Onnx),
        ..LoadOptions::default()
    };
    match load(input, &options) {
        Ok(model) => {
            try_rows_that_fit(model.as_ref());
            true
        }
        Err(_) => false,
    }
}

/// Of a model that refuses some rows: each is tried alone first.
fn try_rows_that_fit(model: &dyn Predictor) {
    let (inputs, scores) = (model.contract().inputs.len(), model.contract().scores);
    if inputs > INPUTS_MAX || scores > SCORES_MAX {
        return;
    }
    let values: Vec<f64> = VALUES.iter().copied().cycle().take(inputs * 19).collect();
    let rows = values.chunks_exact(inputs);
    let alone = rows.map(|row| (row, model.predict(Rows::one(row).expect("a row"))));
    let fit: Vec<_> = alone.filter_map(|(row, p)| Some((row, p.ok()?))).collect();
    let all: Vec<f64> = fit
        .iter()
        .flat_map(|(row, _)| row.iter().copied())
        .collect();
    let all = Rows::new(&all, inputs).expect("whole rows");
    let together = model.predict(all).expect("rows that each were answered");
    let alone = fit.iter().flat_map(|(_, prediction)| &prediction.outputs);
    for (place, (a, b)) in alone.zip(&together.outputs).enumerate() {
        let same = a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
        assert!(same, "output {place} is {a} alone and {b} in a batch");
    }
}

fn try_rows(model: &dyn Predictor) {
    let (inputs, scores) = (model.contract().inputs.len(), model.contract().scores);
    if inputs == 0 || inputs > INPUTS_MAX || scores > SCORES_MAX {
        return;
    }
    // More rows than are walked side by side.
    let values: Vec<f64> = VALUES.iter().copied().cycle().take(inputs * 19).collect();
    let rows = Rows::new(&values, inputs).expect("whole rows");
    let all = model.predict(rows).expect("rows that fit");
    for row in 0..rows.len() {
        let one = Rows::one(rows.row(row)).expect("a row");
        let alone = model.predict(one).expect("a row that fits");
        let same = all.scores[row * scores..(row + 1) * scores]
            .iter()
            .zip(&alone.scores)
            .all(|(a, b)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()));
        assert!(same, "row {row} differs alone");
    }
    if model.contract().contributions.is_ok() {
        let one = Rows::one(rows.row(0)).expect("a row");
        let width = scores * (inputs + 1);
        assert_eq!(model.explain(one).expect("contributions").len(), width);
    }
}

pub const LIGHTGBM: Target = Target {
    name: "lightgbm",
    seeds: || vec![include_bytes!("../../../models/src/lightgbm/small.txt").to_vec()],
    words: &[
        "Tree=0\n",
        "num_leaves=",
        "is_linear=1\nleaf_const=1 2\nnum_features=1 0\nleaf_features=0\nleaf_coeff=2\n",
        "average_output\n",
        "objective=multiclass num_class:2\n",
        "num_tree_per_iteration=3\n",
        "end of trees\n",
        "nan",
        "inf",
        " 1",
        "-2",
    ],
    run: |input| run(input, Format::LightGbm),
};

pub const XGBOOST: Target = Target {
    name: "xgboost",
    seeds: || vec![include_bytes!("../../../models/src/xgboost/small.json").to_vec()],
    words: &[
        "\"size_leaf_vector\":\"2\"",
        "\"leaf_weights\":[1,2,3,4]",
        "\"gblinear\"",
        "\"weights\":[1,2,3]",
        "\"dart\"",
        "\"weight_drop\":[1,1]",
        "\"num_class\":\"3\"",
        "multi:softprob",
        "[1E0,2E0,3E0]",
        "NaN",
        "-Infinity",
        "null",
        "-1",
    ],
    run: |input| run(input, Format::XgboostJson),
};

pub const UBJSON: Target = Target {
    name: "ubjson",
    seeds: || vec![include_bytes!("../../../models/src/xgboost/small.ubj").to_vec()],
    words: &[
        "[$d#L", "[$l#L", "{$S#l", "[#U", "[[[[", "{}", "Z", "T", "[$[#L", "N",
    ],
    run: |input| run(input, Format::XgboostUbjson),
};

pub const CATBOOST: Target = Target {
    name: "catboost",
    seeds: || {
        vec![
            include_bytes!("../../../models/src/catboost/small.json").to_vec(),
            include_bytes!("../../../models/src/catboost/statistics.json").to_vec(),
            include_bytes!("../../../models/src/catboost/nested.json").to_vec(),
        ]
    },
    words: &[
        "\"Counter\"",
        "\"Buckets\"",
        "\"BinarizedTargetMeanValue\"",
        "\"target_border_idx\":9",
        "\"cat_feature_exact_value\"",
        "\"AsTrue\"",
        "\"MultiClass\"",
        "\"hash_stride\":2",
        "18446744073709551615",
        "[]",
        "null",
        "-1",
    ],
    run: |input| run(input, Format::CatBoostJson),
};

pub const LINEAR: Target = Target {
    name: "linear",
    seeds: || vec![include_bytes!("../../../models/src/linear_small.json").to_vec()],
    words: &[
        "\"softmax\"",
        "[[1,2],[3,4]]",
        "[]",
        "null",
        "1e308",
        "\"scale\":0",
        "\"missing\":1",
    ],
    run: |input| run(input, Format::Linear),
};

pub const ONNX: Target = Target {
    name: "onnx",
    seeds: || {
        vec![
            include_bytes!("../../../models/src/onnx/small_trees.onnx").to_vec(),
            include_bytes!("../../../models/src/onnx/small_network.onnx").to_vec(),
        ]
    },
    words: &[
        "BRANCH_EQ",
        "BRANCH_GTE",
        "LOGISTIC",
        "SOFTMAX",
        "TreeEnsembleRegressor",
        "OneHotEncoder",
        "Normalizer",
        "Reshape",
        "Gather",
        "Softmax",
        "ai.onnx.ml",
        "\u{8}\u{7}",
        "\u{0}\u{0}\u{0}\u{7f}",
    ],
    run: run_onnx,
};

pub const RULES: Target = Target {
    name: "rules",
    seeds: || {
        let small = include_bytes!("../../../serve/src/rules/small.yaml").to_vec();
        // As deep as an expression may be: what makes it longer makes it too deep.
        let sum = format!(
            "  - {{name: deep, expression: amount{}}}\n",
            " + amount".repeat(400)
        );
        let deep = [small.clone(), sum.into_bytes()].concat();
        vec![small, deep]
    },
    words: &[
        "headwater-rules/2",
        "type: integer",
        "values: []",
        "values: [de]",
        "name: amount",
        "amount / age",
        " / 0",
        "CAST(country AS INT)",
        " + amount + amount + amount + amount + amount + amount + amount + amount",
        "sum(amount)",
        "random()",
        "NULL",
        "'",
    ],
    run: run_rules,
};
