//! A small model written by hand; the package's own are compared in `crates/headwater/tests/clients`.

use crate::{Format, LoadOptions, Predictor, Rows, Task, load};

const MODEL: &str = include_str!("small.json");

fn model(text: &str) -> Box<dyn Predictor> {
    load(text.as_bytes(), &LoadOptions::default()).unwrap()
}

#[test]
fn rows_go_where_xgboost_sends_them() {
    assert_eq!(Format::sniff(MODEL.as_bytes()), Ok(Format::XgboostJson));
    let model = model(MODEL);
    assert_eq!(model.contract().task, Task::Binary);
    // As a float, the threshold is 0.1 and a little more: the double 0.1 rounds to it and goes right.
    for (row, wanted) in [
        ([0.1, 0.0], 12.0),
        ([0.1f64.next_down(), 0.0], 12.0),
        ([0.0999, 1.0], 21.0),
        ([f64::NAN, 32.0], 11.0),
        ([1.0, 33.0], 22.0),
        ([1.0, -0.5], 12.0),
        ([1.0, 0.999_999_999_9], 22.0),
        ([1.0, f64::NAN], 22.0),
        ([1.0, 1e9], 12.0),
    ] {
        let scores = model.predict(Rows::one(&row).unwrap()).unwrap().scores;
        assert_eq!(scores, [wanted], "{row:?}");
    }
}

#[test]
fn what_cannot_be_served_is_refused_when_it_is_loaded() {
    let code = |text: &str| {
        load(text.as_bytes(), &LoadOptions::default())
            .unwrap_err()
            .code
    };
    assert_eq!(
        code(&MODEL.replace("binary:logistic", "my:own")),
        "model-unsupported"
    );
    assert_eq!(
        code(&MODEL.replace("\"name\":\"gbtree\"", "\"name\":\"other\"")),
        "model-unsupported"
    );
    assert_eq!(
        code(&MODEL.replace("\"left_children\":[1", "\"left_children\":[2")),
        "model-corrupt"
    );
    assert_eq!(
        code(&MODEL.replace("\"right_children\":[2", "\"right_children\":[7")),
        "model-corrupt"
    );
    assert_eq!(
        code(&MODEL.replace("\"tree_info\":[0,0]", "\"tree_info\":[0,4]")),
        "model-corrupt"
    );
    assert_eq!(
        code(&MODEL.replace("\"split_indices\":[1", "\"split_indices\":[2")),
        "model-corrupt"
    );
    assert_eq!(
        code(&MODEL.replace("\"categories_segments\":[0]", "\"categories_segments\":[1]")),
        "model-corrupt"
    );
    assert_eq!(
        code(&MODEL.replace("\"num_nodes\":\"3\"", "\"num_nodes\":\"4\"")),
        "model-corrupt"
    );
    assert_eq!(code(&MODEL[..900]), "model-corrupt");
}
