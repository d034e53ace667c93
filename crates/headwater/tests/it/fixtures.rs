//! Fixture tests: those of the flights example pass, and one that doesn't says what it saw and where.

use std::path::Path;

use headwater_testkit::TempProject;
use serde_json::Value;

use crate::{BINARY, SHOP};

const TEST: &str = "\
apiVersion: headwater/v1
kind: Test
name: an_hour
spec:
  facts:
    purchase:
      - {id: a, customer: ada, amount: 2.5, time: 2026-01-15T09:00:00Z}
      - {id: a, customer: ada, amount: 2.5, time: 2026-01-15T09:00:00Z}
      - {id: b, customer: ada, amount: -1, time: 2026-01-15T09:00:00Z}
  rejected:
    - {contract: purchase, row: 2}
  cases:
    - name: whole
      as_of: 2026-01-15T09:30:00Z
      entity: {customer: ada}
      expect:
        spending.purchases_1h: 1
        spending.spent_1h: 2.5
        spending.last: {value: 2.5, status: PRESENT}
";

fn project(test: &str) -> TempProject {
    let project = TempProject::new(BINARY, SHOP);
    project.write("tests/shop.yaml", test);
    project
}

#[test]
fn the_example_passes_its_own_tests() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/flights");
    let project = TempProject::new(BINARY, &[]);
    let example = example.to_str().unwrap();
    let said = project.run_ok(&["--project", example, "--json", "test"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["failed"], 0);
    assert!(said["passed"].as_u64().unwrap() >= 4, "{said}");
}

#[test]
fn what_fails_is_told_with_its_place_and_a_difference() {
    assert!(
        project(TEST)
            .run_ok(&["test"])
            .contains("1 passed, 0 failed.")
    );
    let cases = [
        (
            "purchases_1h: 1",
            "purchases_1h: 2",
            "expected  2\n          got       1 PRESENT",
        ),
        (
            "status: PRESENT",
            "status: NOT_FOUND",
            "expected  2.5 NOT_FOUND",
        ),
        (
            "spent_1h: 2.5",
            "spent_1h: 2.5000000001",
            "got       2.5 PRESENT",
        ),
        ("row: 2", "row: 0", "row 0 of purchase was taken"),
        ("row: 2", "row: 0", "row 2 of purchase was rejected"),
        (
            "{customer: ada}\n",
            "{page: ada}\n",
            "doesn't name the entity",
        ),
        (
            "as_of: 2026-01-15T09:30",
            "as_of: 2026-01-15T10:00",
            "got       0 PRESENT",
        ),
    ];
    for (from, to, message) in cases {
        assert!(TEST.contains(from), "{from}");
        let output = project(&TEST.replacen(from, to, 1)).run(&["test"]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(1), "{to}: {said}");
        assert!(said.contains(message), "{to}: no `{message}` in\n{said}");
        assert!(said.contains("FAIL  an_hour"), "{said}");
    }
    let wrong = project(&TEST.replace("purchases_1h: 1", "purchases_1h: 2"));
    let said = String::from_utf8_lossy(&wrong.run(&["test", "--json"]).stdout).into_owned();
    let said: Value = serde_json::from_str(&said).unwrap();
    let difference = &said["tests"][0]["cases"][0]["differences"][0];
    assert_eq!(difference["feature"], "spending.purchases_1h");
    assert_eq!(difference["at"], "tests/shop.yaml:17:9");
    assert_eq!(
        (&difference["expected"], &difference["value"]),
        (&2.into(), &1.into())
    );
    assert!(
        wrong
            .run_fails(&["test", "nothing"])
            .contains("no test has such a name")
    );
}

const LABEL_TEST: &str = "\
apiVersion: headwater/v1
kind: Test
name: comes_back
spec:
  facts:
    purchase:
      - {id: a, customer: ada, amount: 2.5, time: 2026-01-15T09:00:00Z}
      - {id: b, customer: ada, amount: 4, time: 2026-01-15T09:00:03Z}
  cases:
    - name: within five seconds
      as_of: 2026-01-15T09:00:00Z
      entity: {customer: ada}
      expect: {spending.purchases_1h: 1}
      labels: {comes_back: true, next_amount: {value: 4, tolerance: 0.1}, spends: 4}
    - name: before the horizon
      as_of: 2026-01-15T09:00:00Z
      labels_as_of: 2026-01-15T09:00:04Z
      entity: {customer: ada}
      labels: {comes_back: null, spends: 4.0}
    - name: before it was known
      as_of: 2026-01-15T09:00:00Z
      known_at: 1
      entity: {customer: ada}
      labels: {comes_back: false, spends: -1}
";

#[test]
fn labels_are_tested_as_training_sets_have_them() {
    let test = |text: &str| {
        let project = project(text);
        project.write(
            "labels.yaml",
            crate::labels::LABELS.trim_start_matches("\n---"),
        );
        let output = project.run(&["test"]);
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr),
        )
    };
    let (code, said) = test(LABEL_TEST);
    assert_eq!(code, Some(0), "{said}");
    let cases = [
        (
            "{comes_back: true",
            "{comes_back: false",
            "expected  false\n          got       true\n",
        ),
        ("{comes_back: null", "{comes_back: true", "got       null\n"),
        ("spends: -1", "spends: 0", "got       -1.0\n"),
        (
            "{comes_back: true",
            "{came_back: true",
            "did you mean `comes_back`?",
        ),
        (
            "{value: 4,",
            "{value: 4, status: PRESENT,",
            "a label has no status",
        ),
        (
            "labels_as_of: 2026-01-15T09:00:04Z",
            "labels_as_of: later",
            "`labels_as_of` is no time",
        ),
    ];
    for (from, to, message) in cases {
        assert!(LABEL_TEST.contains(from), "{from}");
        let (code, said) = test(&LABEL_TEST.replacen(from, to, 1));
        assert_eq!(code, Some(1), "{to}: {said}");
        assert!(said.contains(message), "{to}: no `{message}` in\n{said}");
    }
}

#[test]
fn mistakes_in_tests_are_found_by_check() {
    let cases = [
        (
            "spending.spent_1h",
            "spending.spend_1h",
            "shop.yaml:18:9",
            "did you mean `spending.spent_1h`?",
        ),
        (
            "    purchase:",
            "    purchse:",
            "shop.yaml:",
            "did you mean `purchase`?",
        ),
        (
            "as_of: 2026-01-15T09:30:00Z",
            "as_of: noon",
            "shop.yaml:14:",
            "`as_of` is no time",
        ),
        ("as_of:", "asof:", "shop.yaml:", "asof"),
        (
            "status: PRESENT",
            "status: THERE",
            "shop.yaml:19:9",
            "it is one of PRESENT",
        ),
    ];
    for (from, to, place, message) in cases {
        assert!(TEST.contains(from), "{from}");
        let said = project(&TEST.replacen(from, to, 1)).run_fails(&["check"]);
        assert!(
            said.contains(place) && said.contains(message),
            "{to}: {said}"
        );
    }
}
