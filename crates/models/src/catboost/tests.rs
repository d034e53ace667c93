//! A small model written by hand; the package's own are compared in `crates/headwater/tests/clients`.

use headwater_schema::Value;

use crate::{Format, LoadOptions, Rows, Task, load};

const MODEL: &str = include_str!("small.json");

#[test]
fn rows_go_where_catboost_sends_them() {
    assert_eq!(Format::sniff(MODEL.as_bytes()), Ok(Format::CatBoostJson));
    let model = load(MODEL.as_bytes(), &LoadOptions::default()).unwrap();
    let contract = model.contract();
    assert_eq!(contract.task, Task::Binary);
    assert_eq!(contract.classes, ["no", "yes"]);
    for (x, c, wanted) in [
        (0.5, Value::string("a"), 2.25),
        (0.6, Value::string("a"), 4.25),
        (0.5, Value::string("b"), 8.25),
        (f64::NAN, Value::string("b"), 16.25),
        (f64::NAN, Value::string("unseen"), 4.25),
        (0.0, Value::Null, 2.25),
    ] {
        let row = [x, contract.inputs[1].encode(&c, &mut Vec::new()).unwrap()];
        let scores = model.predict(Rows::one(&row).unwrap()).unwrap().scores;
        assert_eq!(scores, [wanted], "{x} {c:?}");
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
        code(&MODEL.replace("Logloss", "UserDefined")),
        "model-unsupported"
    );
    assert_eq!(
        code(&MODEL.replace("OneHotFeature", "TextFeature")),
        "model-unsupported"
    );
    assert_eq!(
        code(&MODEL.replace("\"cat_features_hash\"", "\"nothing\"")),
        "model-unsupported"
    );
    assert_eq!(
        code(&MODEL.replace("\"float_features\"", "\"text_features\"")),
        "model-unsupported"
    );
    assert_eq!(
        code(&MODEL.replace("[1,2,4,8]", "[1,2,4]")),
        "model-corrupt"
    );
    assert_eq!(
        code(&MODEL.replace("\"flat_feature_index\":1", "\"flat_feature_index\":9")),
        "model-corrupt"
    );
    assert_eq!(
        code(&MODEL.replace("\"float_feature_index\":0", "\"float_feature_index\":3")),
        "model-corrupt"
    );
    assert_eq!(
        code(&MODEL.replace(
            "\"split_index\":1,\"split_type\":\"OneHotFeature\"",
            "\"split_index\":9,\"split_type\":\"OnlineCtr\",\"border\":1"
        )),
        "model-corrupt"
    );
}
