//! Trees in ONNX by hand and at random, against a descent by the words of the format.

use proptest::prelude::*;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
};

use super::super::tests::{
    DOUBLE, FLOAT, INT64, loaded, model, node, predict, refused, value, weights,
};
use crate::{Rows, Task};

const STRING: i32 = 8;

fn attribute(name: &str) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        ..AttributeProto::default()
    }
}

fn ints(name: &str, ints: impl IntoIterator<Item = i64>) -> AttributeProto {
    AttributeProto {
        r#type: 7,
        ints: ints.into_iter().collect(),
        ..attribute(name)
    }
}

fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto {
        r#type: 2,
        i,
        ..attribute(name)
    }
}

fn floats(name: &str, floats: impl IntoIterator<Item = f32>) -> AttributeProto {
    AttributeProto {
        r#type: 6,
        floats: floats.into_iter().collect(),
        ..attribute(name)
    }
}

fn text(name: &str, text: &str) -> AttributeProto {
    AttributeProto {
        r#type: 3,
        s: text.into(),
        ..attribute(name)
    }
}

fn texts<'a>(name: &str, texts: impl IntoIterator<Item = &'a str>) -> AttributeProto {
    AttributeProto {
        r#type: 8,
        strings: texts.into_iter().map(|t| t.as_bytes().to_vec()).collect(),
        ..attribute(name)
    }
}

fn classical(
    op_type: &str,
    input: &[&str],
    output: &[&str],
    attribute: Vec<AttributeProto>,
) -> NodeProto {
    NodeProto {
        domain: "ai.onnx.ml".into(),
        output: output.iter().map(|o| (*o).to_owned()).collect(),
        attribute,
        ..node(op_type, input, output[0])
    }
}

fn whole(input: i32, columns: i64, node: Vec<NodeProto>, outputs: &[&str]) -> ModelProto {
    let mut model = model(GraphProto {
        input: vec![value("x", input, Some(columns))],
        output: outputs
            .iter()
            .map(|name| value(name, FLOAT, None))
            .collect(),
        node,
        ..GraphProto::default()
    });
    model.opset_import.push(OperatorSetIdProto {
        domain: "ai.onnx.ml".into(),
        version: 3,
    });
    model
}

/// A node as the format has it: its id, and for a split mode, column, threshold, whether missing values pass, children.
#[derive(Debug, Clone)]
enum Node {
    Leaf(i64),
    Split(i64, &'static str, usize, f32, bool, i64, i64),
}

#[derive(Debug, Clone, Default)]
struct Trees {
    nodes: Vec<(i64, Node)>,
    /// Tree, leaf, score, weight.
    weights: Vec<(i64, i64, usize, f32)>,
}

impl Trees {
    fn attributes(&self, what: &str) -> Vec<AttributeProto> {
        let each = |of: fn(&Node) -> i64| self.nodes.iter().map(move |(_, n)| of(n));
        let mode = |n: &Node| match n {
            Node::Leaf(_) => "LEAF",
            Node::Split(_, mode, ..) => *mode,
        };
        let threshold = |n: &Node| match n {
            Node::Leaf(_) => 77.0,
            Node::Split(_, _, _, threshold, ..) => *threshold,
        };
        vec![
            ints("nodes_treeids", self.nodes.iter().map(|(tree, _)| *tree)),
            ints(
                "nodes_nodeids",
                each(|n| match n {
                    Node::Leaf(id) | Node::Split(id, ..) => *id,
                }),
            ),
            ints(
                "nodes_featureids",
                each(|n| match n {
                    Node::Leaf(_) => 0,
                    Node::Split(_, _, column, ..) => *column as i64,
                }),
            ),
            texts("nodes_modes", self.nodes.iter().map(|(_, n)| mode(n))),
            floats("nodes_values", self.nodes.iter().map(|(_, n)| threshold(n))),
            ints(
                "nodes_missing_value_tracks_true",
                each(|n| i64::from(matches!(n, Node::Split(_, _, _, _, true, ..)))),
            ),
            ints(
                "nodes_truenodeids",
                each(|n| match n {
                    Node::Leaf(_) => 0,
                    Node::Split(.., pass, _) => *pass,
                }),
            ),
            ints(
                "nodes_falsenodeids",
                each(|n| match n {
                    Node::Leaf(_) => 0,
                    Node::Split(.., fail) => *fail,
                }),
            ),
            ints(&format!("{what}_treeids"), self.weights.iter().map(|w| w.0)),
            ints(&format!("{what}_nodeids"), self.weights.iter().map(|w| w.1)),
            ints(
                &format!("{what}_ids"),
                self.weights.iter().map(|w| w.2 as i64),
            ),
            floats(&format!("{what}_weights"), self.weights.iter().map(|w| w.3)),
        ]
    }

    /// The leaf of a tree that a row comes to.
    fn leaf(&self, tree: i64, id: i64, row: &[f64], single: bool) -> i64 {
        let found = self.nodes.iter().find(|(t, n)| {
            *t == tree && matches!(n, Node::Leaf(i) | Node::Split(i, ..) if *i == id)
        });
        match found.unwrap().1 {
            Node::Leaf(id) => id,
            Node::Split(_, mode, column, threshold, missing, pass, fail) => {
                let x = if single {
                    f64::from(row[column] as f32)
                } else {
                    row[column]
                };
                let t = f64::from(threshold);
                let passes = match mode {
                    "BRANCH_LEQ" => x <= t,
                    "BRANCH_LT" => x < t,
                    "BRANCH_GTE" => x >= t,
                    "BRANCH_GT" => x > t,
                    "BRANCH_EQ" => x == t,
                    _ => x != t,
                };
                let passes = passes || (missing && x.is_nan());
                self.leaf(tree, if passes { pass } else { fail }, row, single)
            }
        }
    }

    fn sums(&self, row: &[f64], scores: usize, single: bool) -> Vec<f64> {
        let mut sums = vec![0.0; scores];
        let mut seen = Vec::new();
        for (tree, _) in &self.nodes {
            if seen.contains(tree) {
                continue;
            }
            seen.push(*tree);
            let leaf = self.leaf(*tree, ROOT, row, single);
            for (_, _, score, weight) in self.weights.iter().filter(|w| w.0 == *tree && w.1 == leaf)
            {
                sums[*score] += f64::from(*weight);
                if single {
                    sums[*score] = f64::from(sums[*score] as f32);
                }
            }
        }
        sums
    }
}

/// Roots' ids, which needn't be 0.
const ROOT: i64 = 5;
const MODES: [&str; 6] = [
    "BRANCH_LEQ",
    "BRANCH_LT",
    "BRANCH_GTE",
    "BRANCH_GT",
    "BRANCH_EQ",
    "BRANCH_NEQ",
];

#[derive(Debug, Clone)]
enum Shape {
    Leaf(Vec<(usize, f32)>),
    Split(&'static str, usize, f32, bool, Box<Shape>, Box<Shape>),
}

fn shape() -> impl Strategy<Value = Shape> {
    let leaf = prop::collection::btree_map(0_usize..3, -50_i32..50, 0..4).prop_map(|weights| {
        Shape::Leaf(
            weights
                .into_iter()
                .map(|(s, w)| (s, w as f32 / 7.0))
                .collect(),
        )
    });
    leaf.prop_recursive(5, 30, 2, |inner| {
        let test = (0..MODES.len(), 0_usize..3, -3_i32..4, any::<bool>());
        (test, inner.clone(), inner).prop_map(|((mode, column, threshold, missing), a, b)| {
            Shape::Split(
                MODES[mode],
                column,
                threshold as f32 * 0.1,
                missing,
                Box::new(a),
                Box::new(b),
            )
        })
    })
}

fn lay(shape: &Shape, tree: i64, id: i64, next: &mut i64, trees: &mut Trees) {
    match shape {
        Shape::Leaf(weights) => {
            trees.nodes.push((tree, Node::Leaf(id)));
            let weights = weights
                .iter()
                .map(|(score, weight)| (tree, id, *score, *weight));
            trees.weights.extend(weights);
        }
        Shape::Split(mode, column, threshold, missing, a, b) => {
            let (pass, fail) = (*next, *next + 1);
            *next += 2;
            // Children stand before their parent in the file, as they may.
            lay(a, tree, pass, next, trees);
            lay(b, tree, fail, next, trees);
            trees.nodes.push((
                tree,
                Node::Split(id, mode, *column, *threshold, *missing, pass, fail),
            ));
        }
    }
}

fn ensemble(shapes: &[Shape]) -> Trees {
    let mut trees = Trees::default();
    for (tree, shape) in (100..).zip(shapes) {
        lay(shape, tree, ROOT, &mut 6, &mut trees);
    }
    trees
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => (-3_i32..4).prop_map(|n| f64::from(n as f32 * 0.1)),
        2 => (-3_i32..4).prop_map(|n| f64::from(n) * 0.1),
        1 => (-3_i32..4).prop_map(|n| f64::from((n as f32 * 0.1).next_up())),
        1 => -1.0..1.0,
        1 => prop::sample::select(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 1e300]),
    ]
}

proptest! {
    #[test]
    fn trees_are_walked_and_added_as_the_format_says(
        shapes in prop::collection::vec(shape(), 1..6),
        rows in prop::collection::vec(prop::array::uniform3(number()), 1..40),
        base in prop::option::of(prop::array::uniform3(-4_i8..4)),
        average: bool,
        double: bool,
    ) {
        let mut trees = ensemble(&shapes);
        let mut attributes = trees.attributes("target");
        attributes.push(int("n_targets", 3));
        let base = base.map(|base| base.map(|b| f32::from(b) / 3.0));
        if let Some(base) = base {
            // A last tree of one leaf, so that each row has all scores.
            trees.nodes.push((99, Node::Leaf(ROOT)));
            trees.weights.extend((0..3).map(|score| (99, ROOT, score, 0.5)));
            attributes = trees.attributes("target");
            attributes.push(int("n_targets", 3));
            attributes.push(floats("base_values", base));
        }
        if average {
            attributes.push(text("aggregate_function", "AVERAGE"));
        }
        let node = classical("TreeEnsembleRegressor", &["x"], &["y"], attributes);
        let model = loaded(&whole(if double { DOUBLE } else { FLOAT }, 3, vec![node], &["y"]));
        let answers = predict(model.as_ref(), rows.as_flattened());
        let round = |x: f64| if double { x } else { f64::from(x as f32) };
        for (row, answers) in rows.iter().zip(answers.chunks(3)) {
            let sums = trees.sums(row, 3, !double);
            for (score, answer) in answers.iter().enumerate() {
                let mut want = sums[score];
                if average {
                    want = round(want / (shapes.len() + usize::from(base.is_some())) as f64);
                }
                if let Some(base) = base {
                    want = round(want + f64::from(base[score]));
                }
                prop_assert_eq!(*answer, f64::from(want as f32), "score {} of {:?}", score, row);
            }
        }
    }
}

/// One split at 0.5, with a weight for each of `ids` in both leaves.
fn stump(ids: &[usize], leaves: [[f32; 3]; 2]) -> Trees {
    let mut trees = Trees {
        nodes: vec![
            (0, Node::Split(0, "BRANCH_LEQ", 0, 0.5, false, 1, 2)),
            (0, Node::Leaf(1)),
            (0, Node::Leaf(2)),
        ],
        weights: Vec::new(),
    };
    for (leaf, weights) in (1..).zip(leaves) {
        let each = ids.iter().zip(weights);
        trees
            .weights
            .extend(each.map(|(score, weight)| (0, leaf, *score, weight)));
    }
    trees
}

fn classifier(trees: &Trees, classes: usize, more: Vec<AttributeProto>) -> ModelProto {
    let mut attributes = trees.attributes("class");
    if more.iter().all(|a| a.name != "classlabels_strings") {
        attributes.push(ints(
            "classlabels_int64s",
            (0..classes).map(|c| 10 + c as i64),
        ));
    }
    attributes.extend(more);
    let node = classical(
        "TreeEnsembleClassifier",
        &["x"],
        &["label", "p"],
        attributes,
    );
    whole(FLOAT, 1, vec![node], &["label", "p"])
}

#[test]
fn two_classes_of_one_score_are_answered_as_onnx_runtime_does() {
    let positive = stump(&[0], [[0.3, 0.0, 0.0], [0.8, 0.0, 0.0]]);
    let mixed = stump(&[0], [[-0.3, 0.0, 0.0], [0.8, 0.0, 0.0]]);
    let second = stump(&[1], [[0.3, 0.0, 0.0], [0.8, 0.0, 0.0]]);
    let both = stump(&[0, 1], [[0.3, 0.25, 0.0], [0.8, 0.45, 0.0]]);
    let logistic = || vec![text("post_transform", "LOGISTIC")];
    let base = |mut more: Vec<AttributeProto>| {
        more.push(floats("base_values", [0.125]));
        more
    };
    // What ONNX Runtime 1.32 answered to 0 and to 1.
    type Case<'a> = (&'a Trees, Vec<AttributeProto>, [[f32; 3]; 2]);
    let cases: [Case<'_>; 8] = [
        (
            &positive,
            vec![],
            [[10.0, 0.7, 0.3], [11.0, 0.199_999_99, 0.8]],
        ),
        (
            &positive,
            logistic(),
            [
                [10.0, 0.425_557_5, 0.574_442_5],
                [11.0, 0.310_025_5, 0.689_974_5],
            ],
        ),
        (
            &positive,
            base(vec![]),
            [[10.0, 0.575, 0.425], [11.0, 0.074_999_99, 0.925]],
        ),
        (&mixed, vec![], [[10.0, 0.3, -0.3], [11.0, -0.8, 0.8]]),
        (
            &mixed,
            logistic(),
            [
                [10.0, 0.574_442_5, 0.425_557_5],
                [11.0, 0.310_025_5, 0.689_974_5],
            ],
        ),
        (
            &mixed,
            base(vec![]),
            [[10.0, 0.175_000_01, -0.175_000_01], [11.0, -0.925, 0.925]],
        ),
        (&second, vec![], [[10.0, 0.0, 0.3], [11.0, 0.0, 0.8]]),
        (
            &both,
            vec![text("post_transform", "SOFTMAX")],
            [
                [10.0, 0.512_497_4, 0.487_502_6],
                [10.0, 0.586_617_6, 0.413_382_4],
            ],
        ),
    ];
    for (place, (trees, more, want)) in cases.into_iter().enumerate() {
        let model = loaded(&classifier(trees, 2, more));
        assert_eq!(model.contract().task, Task::Multiclass);
        assert_eq!(model.contract().classes, ["10", "11"]);
        let answers = predict(model.as_ref(), &[0.0, 1.0]);
        for (got, want) in answers.iter().zip(want.as_flattened()) {
            assert!(
                (got - f64::from(*want)).abs() < 2e-7,
                "case {place}: {answers:?}"
            );
        }
    }
}

#[test]
fn three_classes_are_transformed_together() {
    let trees = stump(&[0, 1, 2], [[-0.3, 0.25, -0.6], [0.8, -0.45, 0.9]]);
    let cases = [
        ("NONE", [[-0.2, 0.45, -0.3], [0.9, -0.25, 1.2]]),
        (
            "LOGISTIC",
            [
                [0.450_166, 0.610_639_3, 0.425_557_5],
                [0.710_949_5, 0.437_823_5, 0.768_524_8],
            ],
        ),
        (
            "SOFTMAX",
            [
                [0.261_754_2, 0.501_400_8, 0.236_845],
                [0.375_024_05, 0.118_746_4, 0.506_229_5],
            ],
        ),
    ];
    for (transform, want) in cases {
        let more = vec![
            text("post_transform", transform),
            floats("base_values", [0.1, 0.2, 0.3]),
            texts("classlabels_strings", ["a", "b", "c"]),
        ];
        let mut proto = classifier(&trees, 3, more);
        let graph = proto.graph.as_mut().unwrap();
        // Labels of text are left out, and maps of classes are the numbers in them.
        graph.node.push(classical(
            "ZipMap",
            &["p"],
            &["map"],
            vec![texts("classlabels_strings", ["a", "b", "c"])],
        ));
        graph.output = vec![value("label", STRING, None), value("map", FLOAT, None)];
        let model = loaded(&proto);
        assert_eq!(model.contract().classes, ["a", "b", "c"]);
        assert_eq!(model.contract().outputs.len(), 1);
        let answers = predict(model.as_ref(), &[0.0, 1.0]);
        for (got, want) in answers.iter().zip(want.as_flattened()) {
            assert!((got - want).abs() < 3e-7, "{transform}: {answers:?}");
        }
    }
}

#[test]
fn columns_are_made_ready_before_the_trees() {
    let trees = Trees {
        nodes: vec![
            (0, Node::Split(0, "BRANCH_LT", 3, 0.5, false, 1, 2)),
            (0, Node::Leaf(1)),
            (0, Node::Split(2, "BRANCH_GT", 0, 2.0, false, 3, 4)),
            (0, Node::Leaf(3)),
            (0, Node::Leaf(4)),
        ],
        weights: vec![(0, 1, 0, 1.0), (0, 3, 0, 2.0), (0, 4, 0, 4.0)],
    };
    let mut proto = whole(
        FLOAT,
        2,
        vec![
            classical(
                "Imputer",
                &["x"],
                &["filled"],
                vec![
                    floats("imputed_value_floats", [3.0, 9.0]),
                    AttributeProto {
                        f: f32::NAN,
                        ..attribute("replaced_value_float")
                    },
                ],
            ),
            classical(
                "Scaler",
                &["filled"],
                &["scaled"],
                vec![floats("offset", [1.0, 0.0]), floats("scale", [2.0, 1.0])],
            ),
            classical(
                "OneHotEncoder",
                &["kind"],
                &["kinds"],
                vec![ints("cats_int64s", [7, 8])],
            ),
            NodeProto {
                attribute: vec![int("axis", 1)],
                ..node("Concat", &["scaled", "kinds"], "all")
            },
            classical(
                "TreeEnsembleRegressor",
                &["all"],
                &["sum"],
                trees.attributes("target"),
            ),
            node("Mul", &["sum", "ten"], "y"),
        ],
        &["y", "scaled"],
    );
    let graph = proto.graph.as_mut().unwrap();
    graph.input.push(value("kind", INT64, Some(1)));
    graph.initializer.push(weights("ten", &[1], &[10.0]));
    let model = loaded(&proto);
    let rows = [
        [1.5, 0.0, 8.0],
        [2.5, 0.0, 8.0],
        [f64::NAN, f64::NAN, 8.0],
        [2.5, 0.0, 7.0],
        [2.5, 0.0, 3.0],
        [2.5, 0.0, f64::NAN],
    ];
    let answers = predict(model.as_ref(), rows.as_flattened());
    let want = [
        [40.0, 1.0, 0.0],
        [20.0, 3.0, 0.0],
        [20.0, 4.0, 9.0],
        [10.0, 3.0, 0.0],
        [10.0, 3.0, 0.0],
    ];
    assert_eq!(&answers[..15], want.as_flattened());
    assert!(answers[15..].iter().all(|n| n.is_nan()), "{answers:?}");
    let half = model.predict(Rows::one(&[1.0, 1.0, 0.5]).unwrap());
    assert_eq!(half.unwrap_err().code, "model-input");
    assert_eq!(
        model
            .explain(Rows::one(&[1.0, 1.0, 7.0]).unwrap())
            .unwrap_err()
            .code,
        "no-contributions"
    );
}

#[test]
fn hostile_trees_are_refused() {
    let refuse = |change: &dyn Fn(&mut Trees, &mut Vec<AttributeProto>)| {
        let mut trees = stump(&[0], [[1.0, 0.0, 0.0], [2.0, 0.0, 0.0]]);
        let mut more = Vec::new();
        change(&mut trees, &mut more);
        let mut attributes = trees.attributes("target");
        for attribute in more {
            attributes.retain(|a| a.name != attribute.name);
            attributes.push(attribute);
        }
        let node = classical("TreeEnsembleRegressor", &["x"], &["y"], attributes);
        refused(&whole(FLOAT, 1, vec![node], &["y"]))
    };
    type Change<'a> = &'a dyn Fn(&mut Trees, &mut Vec<AttributeProto>);
    let split = |column, threshold, pass, fail| {
        (
            0,
            Node::Split(0, "BRANCH_LEQ", column, threshold, false, pass, fail),
        )
    };
    let cases: [(Change<'_>, &str, &str); 17] = [
        (
            &|t, m| {
                t.weights[0].2 = 1;
                m.push(int("n_targets", 2));
                m.push(floats("base_values", [0.0, 1.0]));
            },
            "unsupported",
            "leave out",
        ),
        (
            &|t, _| {
                t.nodes[0] = split(0, 0.5, 1, 9);
                t.nodes.pop();
                t.weights.pop();
            },
            "corrupt",
            "9 isn't there",
        ),
        (
            &|t, _| t.nodes[0] = split(0, 0.5, 1, 1),
            "corrupt",
            "one root",
        ),
        (
            &|t, _| {
                t.nodes[1] = (0, Node::Split(1, "BRANCH_LT", 0, 0.5, false, 0, 2));
                t.weights.remove(0);
            },
            "corrupt",
            "one root",
        ),
        (
            &|t, _| t.nodes[0] = split(3, 0.5, 1, 2),
            "corrupt",
            "column 3",
        ),
        (
            &|t, _| t.nodes[0] = split(0, f32::NAN, 1, 2),
            "corrupt",
            "threshold",
        ),
        (
            &|t, _| t.nodes.push((0, Node::Leaf(2))),
            "corrupt",
            "same id",
        ),
        (&|t, _| t.weights[0].1 = 0, "corrupt", "leaf 0"),
        (&|t, _| t.weights[0].2 = 4, "corrupt", "score 4"),
        (&|t, _| t.weights.push((0, 1, 0, 1.0)), "corrupt", "twice"),
        (
            &|_, m| m.push(ints("nodes_truenodeids", [1])),
            "corrupt",
            "columns of",
        ),
        (&|_, m| m.push(ints("target_ids", [])), "corrupt", "weights"),
        (
            &|_, m| m.push(texts("nodes_modes", ["BRANCH_MEMBER", "LEAF", "LEAF"])),
            "unsupported",
            "`BRANCH_MEMBER`",
        ),
        (&|_, m| m.push(int("n_targets", 1 << 40)), "limit", "scores"),
        (
            &|_, m| m.push(floats("base_values", [1.0, 2.0])),
            "corrupt",
            "base_values",
        ),
        (
            &|_, m| m.push(text("aggregate_function", "MIN")),
            "unsupported",
            "MIN",
        ),
        (
            &|_, m| m.push(text("post_transform", "LOGISTIC")),
            "unsupported",
            "single target",
        ),
    ];
    for (place, (change, code, said)) in cases.into_iter().enumerate() {
        let (refused, problem) = refuse(change);
        assert!(
            refused == format!("model-{code}") && problem.contains(said),
            "case {place}: {refused} {problem}"
        );
    }
}

#[test]
fn graphs_that_are_not_whole_are_refused() {
    let trees = stump(&[0], [[1.0, 0.0, 0.0], [2.0, 0.0, 0.0]]);
    let of = |input: &[&str], output| {
        classical(
            "TreeEnsembleRegressor",
            input,
            &[output],
            trees.attributes("target"),
        )
    };
    let scale = |attributes| classical("Scaler", &["x"], &["s"], attributes);
    let cases: [(Vec<NodeProto>, &str, &str); 7] = [
        (
            vec![
                of(&["s"], "y"),
                scale(vec![floats("offset", [0.0]), floats("scale", [1.0])]),
            ],
            "corrupt",
            "made later",
        ),
        (vec![of(&["x"], "x")], "corrupt", "Two values"),
        (vec![of(&["x"], "z")], "corrupt", "isn't made"),
        (vec![of(&[], "y")], "corrupt", "isn't there"),
        (
            vec![
                scale(vec![floats("offset", [0.0, 1.0]), floats("scale", [1.0])]),
                of(&["s"], "y"),
            ],
            "corrupt",
            "2 `offset`",
        ),
        (
            vec![
                of(&["x"], "y"),
                classical("TreeEnsemble", &["x"], &["z"], vec![]),
            ],
            "unsupported",
            "`TreeEnsemble` of ai.onnx.ml",
        ),
        (
            vec![of(&["x"], "t"), node("MatMul", &["t", "t"], "y")],
            "unsupported",
            "`MatMul`",
        ),
    ];
    for (place, (nodes, code, said)) in cases.into_iter().enumerate() {
        let (refused, problem) = refused(&whole(FLOAT, 1, nodes, &["y"]));
        assert!(
            refused == format!("model-{code}") && problem.contains(said),
            "case {place}: {refused} {problem}"
        );
    }
    // Each doubles the columns: a few names would take all memory.
    let mut nodes = Vec::new();
    let names: Vec<String> = (0..40).map(|n| format!("d{n}")).collect();
    let mut last = "x";
    for name in &names {
        nodes.push(NodeProto {
            attribute: vec![int("axis", 1)],
            ..node("Concat", &[last, last], name)
        });
        last = name;
    }
    nodes.push(of(&[last], "y"));
    let (code, problem) = refused(&whole(FLOAT, 1, nodes, &["y"]));
    assert!(code == "model-limit", "{code} {problem}");
}

#[test]
fn doubles_are_trees_of_doubles() {
    let doubles = |name: &str, numbers: &[f64]| AttributeProto {
        r#type: 4,
        t: Some(TensorProto {
            dims: vec![numbers.len() as i64],
            data_type: DOUBLE,
            double_data: numbers.to_vec(),
            ..TensorProto::default()
        }),
        ..attribute(name)
    };
    let trees = stump(&[0], [[1.0, 0.0, 0.0], [2.0, 0.0, 0.0]]);
    let mut attributes = trees.attributes("target");
    attributes.retain(|a| a.name != "nodes_values");
    attributes.push(doubles("nodes_values_as_tensor", &[0.1, 0.0, 0.0]));
    let of = |input| {
        let node = classical("TreeEnsembleRegressor", &["x"], &["y"], attributes.clone());
        whole(input, 1, vec![node], &["y"])
    };
    let model = loaded(&of(DOUBLE));
    assert_eq!(
        predict(model.as_ref(), &[0.1, 0.1_f64.next_up()]),
        [1.0, 2.0]
    );
    assert_eq!(refused(&of(FLOAT)).0, "model-unsupported");
}
