//! Random trees: walking against a naive descent, contributions against Shapley's own formula.

use proptest::prelude::*;

use super::{Builder, Forest, Players, SplitTree, Test, TreeNode};
use crate::Rows;

const COLUMNS: usize = 5;

/// A tree's shape: a leaf, or a split with what is below.
#[derive(Debug, Clone)]
enum Shape {
    Leaf(f64, u32),
    Split(usize, Test, Box<Shape>, Box<Shape>),
}

fn test() -> impl Strategy<Value = Test> {
    let value = || (-4i32..4).prop_map(|v| f64::from(v) / 2.0);
    prop_oneof![
        4 => (value(), any::<bool>(), any::<bool>()).prop_map(|(threshold, missing_right, zero_missing)| {
            Test::AtMost { threshold, missing_right, zero_missing }
        }),
        1 => (prop::collection::btree_set(0u32..40, 0..4), any::<[bool; 3]>()).prop_map(|(set, flags)| Test::InSet {
            codes: set.into_iter().collect(),
            member_right: flags[0],
            missing_right: flags[1],
            invalid_right: flags[2],
        }),
        1 => (value(), any::<bool>(), any::<bool>()).prop_map(|(value, member_right, missing_member)| {
            Test::Equal { value, member_right, missing_member }
        }),
    ]
}

fn shape() -> impl Strategy<Value = Shape> {
    let leaf =
        (-100i32..100, 1u32..9).prop_map(|(v, cover)| Shape::Leaf(f64::from(v) / 7.0, cover));
    leaf.prop_recursive(6, 40, 2, |inner| {
        (0..COLUMNS, test(), inner.clone(), inner)
            .prop_map(|(column, test, l, r)| Shape::Split(column, test, Box::new(l), Box::new(r)))
    })
}

fn row() -> impl Strategy<Value = Vec<f64>> {
    let value = prop_oneof![
        6 => (-4i32..4).prop_map(|v| f64::from(v) / 2.0),
        2 => (0i32..40).prop_map(f64::from),
        1 => Just(f64::NAN),
        1 => prop::sample::select(vec![-0.0, 1e-36, f64::INFINITY, f64::NEG_INFINITY, 3e9, -0.5]),
    ];
    prop::collection::vec(value, COLUMNS)
}

/// Adds a shape's nodes, and says how much data came by.
fn lay(shape: &Shape, tree: &mut SplitTree) -> f64 {
    let at = tree.nodes.len();
    tree.covers.push(0.0);
    tree.nodes.push(TreeNode::Leaf {
        values: vec![0.0],
        linear: None,
    });
    let (node, cover) = match shape {
        Shape::Leaf(value, cover) => {
            let leaf = TreeNode::Leaf {
                values: vec![*value],
                linear: None,
            };
            (leaf, f64::from(*cover))
        }
        Shape::Split(column, test, l, r) => {
            let left = tree.nodes.len();
            let of_left = lay(l, tree);
            let right = tree.nodes.len();
            let of_right = lay(r, tree);
            let split = TreeNode::Split {
                column: *column,
                test: test.clone(),
                left,
                right,
            };
            (split, of_left + of_right)
        }
    };
    (tree.nodes[at], tree.covers[at]) = (node, cover);
    cover
}

fn forest(shapes: &[Shape]) -> Forest {
    builder(shapes).finish()
}

/// The same with wide nodes, which only a model with very many thresholds or sets has.
fn wide(shapes: &[Shape]) -> Forest {
    let builder = builder(shapes);
    let thresholds = builder.thresholds();
    builder.finish_with(&thresholds, false)
}

fn builder(shapes: &[Shape]) -> Builder {
    let mut builder = Builder::new(COLUMNS, vec![0.5, -1.0], false);
    for (index, shape) in shapes.iter().enumerate() {
        let mut tree = SplitTree {
            score: index % 2,
            ..SplitTree::default()
        };
        lay(shape, &mut tree);
        builder.push(tree).unwrap();
    }
    builder
}

/// The rule, as its words say it.
fn goes_left(test: &Test, value: f64) -> bool {
    match test {
        Test::AtMost {
            threshold,
            missing_right,
            zero_missing,
        } => {
            if value.is_nan() || (*zero_missing && value.abs() <= super::ZERO_MAX) {
                !missing_right
            } else {
                value <= *threshold
            }
        }
        Test::InSet {
            codes,
            member_right,
            missing_right,
            invalid_right,
        } => {
            if value.is_nan() {
                !missing_right
            } else if value.trunc() < 0.0 || value >= 2f64.powi(31) {
                !invalid_right
            } else {
                let member = codes.iter().any(|c| f64::from(*c) == value.trunc());
                member != *member_right
            }
        }
        Test::Equal {
            value: wanted,
            member_right,
            missing_member,
        } => {
            let member = if value.is_nan() {
                *missing_member
            } else {
                value == *wanted
            };
            member != *member_right
        }
    }
}

/// What a shape says where only some columns are known: others are averaged over.
fn expectation(shape: &Shape, row: &[f64], known: u32) -> (f64, f64) {
    match shape {
        Shape::Leaf(value, cover) => (*value, f64::from(*cover)),
        Shape::Split(column, test, l, r) => {
            let (left, of_left) = expectation(l, row, known);
            let (right, of_right) = expectation(r, row, known);
            let cover = of_left + of_right;
            let value = if known & (1 << column) == 0 {
                (left * of_left + right * of_right) / cover
            } else if goes_left(test, row[*column]) {
                left
            } else {
                right
            };
            (value, cover)
        }
    }
}

fn factorial(n: u32) -> f64 {
    (1..=n).map(f64::from).product()
}

/// Shapley's formula, subset by subset.
fn shapley(shape: &Shape, row: &[f64], column: usize) -> f64 {
    let n = COLUMNS as u32;
    let others = (0u32..1 << n).filter(|set| set & (1 << column) == 0);
    let sum = others.map(|set| {
        let size = set.count_ones();
        let weight = factorial(size) * factorial(n - size - 1) / factorial(n);
        let (with, _) = expectation(shape, row, set | 1 << column);
        let (without, _) = expectation(shape, row, set);
        weight * (with - without)
    });
    sum.sum()
}

proptest! {
    #[test]
    fn walking_agrees_with_the_rules(
        shapes in prop::collection::vec(shape(), 0..40),
        rows in prop::collection::vec(row(), 1..70),
    ) {
        let forest = forest(&shapes);
        let flat = rows.concat();
        let mut out = vec![0.0; rows.len() * 2];
        let rows_of_all = Rows::new(&flat, COLUMNS).unwrap();
        forest.score(rows_of_all, &mut out);
        let mut of_wide = vec![0.0; out.len()];
        wide(&shapes).score(rows_of_all, &mut of_wide);
        prop_assert_eq!(&of_wide, &out);
        for (row, scores) in rows.iter().zip(out.chunks(2)) {
            let mut sums = [0.5, -1.0];
            for (index, shape) in shapes.iter().enumerate() {
                sums[index % 2] += expectation(shape, row, u32::MAX).0;
            }
            prop_assert_eq!(scores, &sums);
            let mut alone = [0.0; 2];
            forest.score(Rows::one(row).unwrap(), &mut alone);
            prop_assert_eq!(alone.map(f64::to_bits), [scores[0].to_bits(), scores[1].to_bits()]);
        }
    }

    #[test]
    fn contributions_are_shapley_values(shapes in prop::collection::vec(shape(), 1..4), row in row()) {
        let forest = forest(&shapes);
        let mut out = vec![0.0; 2 * (COLUMNS + 1)];
        let players = Players { count: COLUMNS, of_column: (0..COLUMNS).collect() };
        forest.explain(Rows::one(&row).unwrap(), &players, &mut out);
        for (score, phi) in out.chunks(COLUMNS + 1).enumerate() {
            let own: Vec<&Shape> = shapes.iter().skip(score).step_by(2).collect();
            for (column, value) in phi[..COLUMNS].iter().enumerate() {
                let wanted: f64 = own.iter().map(|s| shapley(s, &row, column)).sum();
                prop_assert!((value - wanted).abs() < 1e-9, "column {}: {} for {}", column, value, wanted);
            }
            let base = [0.5, -1.0][score];
            let wanted: f64 = base + own.iter().map(|s| expectation(s, &row, 0).0).sum::<f64>();
            prop_assert!((phi[COLUMNS] - wanted).abs() < 1e-9);
        }
    }
}

#[test]
fn what_is_not_a_tree_is_refused() {
    let leaf = || TreeNode::Leaf {
        values: vec![1.0],
        linear: None,
    };
    let split = |left, right| TreeNode::Split {
        column: 0,
        test: Test::AtMost {
            threshold: 0.0,
            missing_right: false,
            zero_missing: false,
        },
        left,
        right,
    };
    let push = |nodes: Vec<TreeNode>| {
        let mut builder = Builder::new(1, vec![0.0], false);
        builder
            .push(SplitTree {
                nodes,
                ..SplitTree::default()
            })
            .map_err(|p| p.code)
    };
    assert_eq!(push(vec![split(1, 2), leaf(), leaf()]), Ok(()));
    assert_eq!(push(vec![]), Err("model-corrupt"));
    assert_eq!(
        push(vec![split(1, 3), leaf(), leaf()]),
        Err("model-corrupt")
    );
    assert_eq!(push(vec![split(1, 0), leaf()]), Err("model-corrupt"));
    assert_eq!(push(vec![split(1, 1), leaf()]), Err("model-corrupt"));
    // A chain, one split deeper than is allowed.
    let most = crate::limits::TREE_DEPTH_MAX;
    let chain = |depth: usize| {
        let splits = (0..depth).map(|i| split(2 * i + 2, 2 * i + 1));
        let mut nodes: Vec<TreeNode> = splits.flat_map(|s| [s, leaf()]).collect();
        nodes.push(leaf());
        push(nodes)
    };
    assert_eq!(chain(most), Ok(()));
    assert_eq!(chain(most + 1), Err("model-limit"));
}

/// Stumps: each asks one thing and says a number of its own.
fn stumps(tests: impl IntoIterator<Item = Test>) -> Builder {
    let mut builder = Builder::new(1, vec![0.5], false);
    for (index, test) in tests.into_iter().enumerate() {
        let leaf = |values: f64| TreeNode::Leaf {
            values: vec![values],
            linear: None,
        };
        let split = TreeNode::Split {
            column: 0,
            test,
            left: 1,
            right: 2,
        };
        let (left, right) = (index as f64 / 7.0, -(index as f64) / 3.0);
        let nodes = vec![split, leaf(left), leaf(right)];
        let tree = SplitTree {
            nodes,
            ..SplitTree::default()
        };
        builder.push(tree).unwrap();
    }
    builder
}

/// What stumps say, by the rule.
fn sum_of(tests: &[Test], value: f64) -> f64 {
    let stumps = tests.iter().enumerate();
    stumps.fold(0.5, |sum, (index, test)| match goes_left(test, value) {
        true => sum + index as f64 / 7.0,
        false => sum - index as f64 / 3.0,
    })
}

/// Holds a forest of stumps to the rules, for rows alone and together.
fn agrees(forest: &Forest, tests: &[Test]) {
    let rows: Vec<f64> = (0..40).map(|i| f64::from(i) * 1700.5 - 3.0).collect();
    let mut out = vec![0.0; rows.len()];
    forest.score(Rows::new(&rows, 1).unwrap(), &mut out);
    for (value, together) in rows.iter().zip(out) {
        let mut alone = [0.0];
        forest.score(Rows::one(&[*value]).unwrap(), &mut alone);
        let wanted = sum_of(tests, *value);
        assert_eq!([together, alone[0]], [wanted; 2], "of {value}");
    }
}

fn above(threshold: f64) -> Test {
    Test::AtMost {
        threshold,
        missing_right: false,
        zero_missing: false,
    }
}

#[test]
fn more_trees_than_a_block_and_more_places_than_the_stack_agree_with_the_rules() {
    let equal = |value: i32| Test::Equal {
        value: f64::from(value) * 1700.5 - 3.0,
        member_right: value % 2 == 0,
        missing_member: false,
    };
    let tests: Vec<Test> = (0..1100)
        .map(equal)
        .chain((0..100).map(|i| above(f64::from(i) * 500.0)))
        .collect();
    let forest = stumps(tests.clone()).finish();
    assert!(forest.encoder.places() > 1024 && forest.trees.len() > 2 * 512);
    agrees(&forest, &tests);
}

#[test]
fn nodes_are_wide_where_thresholds_are_too_many_for_narrow_ones() {
    for (thresholds, narrow) in [(65_534, true), (65_535, false)] {
        let tests: Vec<Test> = (0..thresholds).map(|i| above(f64::from(i))).collect();
        let forest = stumps(tests.clone()).finish();
        assert_eq!(matches!(forest.nodes, super::Nodes::Narrow(_)), narrow);
        agrees(&forest, &tests);
    }
}

#[test]
fn a_threshold_that_is_no_number_is_refused() {
    let mut builder = Builder::new(1, vec![0.0], false);
    let leaf = || TreeNode::Leaf {
        values: vec![1.0],
        linear: None,
    };
    let split = TreeNode::Split {
        column: 0,
        test: above(f64::NAN),
        left: 1,
        right: 2,
    };
    let tree = SplitTree {
        nodes: vec![split, leaf(), leaf()],
        ..SplitTree::default()
    };
    assert_eq!(builder.push(tree).unwrap_err().code, "model-corrupt");
}

#[test]
fn sets_of_too_many_categories_are_refused() {
    let tree = |members: usize| {
        let leaf = || TreeNode::Leaf {
            values: vec![1.0],
            linear: None,
        };
        let test = Test::InSet {
            codes: (0..members as u32).collect(),
            member_right: true,
            missing_right: false,
            invalid_right: false,
        };
        let split = TreeNode::Split {
            column: 0,
            test,
            left: 1,
            right: 2,
        };
        SplitTree {
            nodes: vec![split, leaf(), leaf()],
            ..SplitTree::default()
        }
    };
    let most = crate::limits::MEMBERS_MAX;
    let mut builder = Builder::new(1, vec![0.0], false);
    // The same set again is no other one.
    assert!(builder.push(tree(most - 32)).is_ok());
    assert!(builder.push(tree(most - 32)).is_ok());
    assert!(builder.push(tree(32)).is_ok());
    let refused = builder.push(tree(64)).unwrap_err();
    assert_eq!(refused.code, "model-limit");
    assert!(refused.detail.contains("categories in sets"), "{refused}");
}
