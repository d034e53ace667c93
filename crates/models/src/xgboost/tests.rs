//! A small model written by hand; the package's own are compared in `crates/headwater/tests/clients`.

use crate::{Format, LoadOptions, Predictor, Rows, Task, load};

const MODEL: &str = r#"{"learner":{"attributes":{},"feature_names":["amount","kind"],"feature_types":["float","c"],
"gradient_booster":{"model":{"gbtree_model_param":{"num_parallel_tree":"1","num_trees":"2"},"tree_info":[0,0],"trees":[
{"base_weights":[0,1,2],"categories":[],"categories_nodes":[],"categories_segments":[],"categories_sizes":[],"default_left":[1,0,0],"left_children":[1,-1,-1],
"right_children":[2,-1,-1],"split_conditions":[0.1,1E0,2E0],"split_indices":[0,0,0],"split_type":[0,0,0],"sum_hessian":[10,6,4],
"tree_param":{"num_deleted":"0","num_feature":"2","num_nodes":"3","size_leaf_vector":"1"}},
{"base_weights":[0,1,2],"categories":[1,33],"categories_nodes":[0],"categories_segments":[0],"categories_sizes":[2],"default_left":[0,0,0],"left_children":[1,-1,-1],
"right_children":[2,-1,-1],"split_conditions":[1E-45,1E1,2E1],"split_indices":[1,0,0],"split_type":[1,0,0],"sum_hessian":[10,6,4],
"tree_param":{"num_deleted":"0","num_feature":"2","num_nodes":"3","size_leaf_vector":"1"}}]},"name":"gbtree"},
"learner_model_param":{"base_score":"5E-1","num_class":"0","num_feature":"2","num_target":"1"},
"objective":{"name":"binary:logistic","reg_loss_param":{"scale_pos_weight":"1"}}},"version":[1,7,6]}"#;

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
