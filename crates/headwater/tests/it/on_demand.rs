//! On-demand features from outside: over HTTP, from the command line, and what is refused.

use headwater_testkit::{ServerProcess, TempProject};
use serde_json::{Value, json};

use crate::{BINARY, SHOP};

const SET: &str = "
apiVersion: headwater/v1
kind: FeatureSet
name: risk
spec:
  features: [spending.spent_1h, spending.purchases_1h]
  context:
    - {name: amount, type: number}
    - {name: country, type: string}
  on_demand:
    - {name: large, expression: ratio > 2 OR country <> 'NL'}
    - {name: ratio, expression: amount / (spent_1h / purchases_1h), default: -1}
";

fn shop() -> TempProject {
    let project = TempProject::new(BINARY, SHOP);
    project.write("features/risk.yaml", SET);
    project.run_ok(&["apply"]);
    project
}

#[test]
fn a_request_brings_its_own_fields() {
    let project = shop();
    let server = ServerProcess::start(&project);
    let facts = json!([
        {"id": "a", "customer": "ada", "amount": 10.0, "time": 1_000_000},
        {"id": "b", "customer": "ada", "amount": 30.0, "time": 2_000_000},
    ]);
    assert_eq!(server.post_json("/v1/facts/purchase", &facts).status, 200);
    let read = |context: Value| {
        let body = json!({"feature_set": "risk", "entities": [{"customer": "ada"}, {"customer": "bob"}],
            "as_of": 3_000_000, "context": context});
        server.post_json("/v1/features", &body)
    };
    let reply = read(json!([{"amount": 50, "country": "NL"}, {"amount": 5, "country": null}]));
    assert_eq!(reply.status, 200, "{}", reply.body);
    let reply = reply.json();
    let names = [
        "spending.spent_1h",
        "spending.purchases_1h",
        "risk.large",
        "risk.ratio",
    ];
    assert_eq!(reply["names"], json!(names));
    assert_eq!(reply["rows"][0]["values"], json!([40.0, 2, true, 2.5]));
    assert_eq!(reply["rows"][1]["values"][3], json!(-1.0));
    assert_eq!(reply["rows"][1]["statuses"][3], json!("NOT_FOUND"));
    let wrong = [
        (json!([{"amount": 50, "country": "NL"}]), "1 rows of 2"),
        (
            json!([{"amount": 50, "country": "NL"}, {"country": "NL"}]),
            "context[1].amount",
        ),
        (
            json!([{"amount": "50", "country": "NL"}, {}]),
            "context[0].amount",
        ),
        (
            json!([{"amount": 50, "county": "NL"}, {}]),
            "did you mean `country`?",
        ),
    ];
    for (context, words) in wrong {
        let reply = read(context);
        assert_eq!(reply.status, 400, "{}", reply.body);
        assert!(reply.body.contains(words), "no `{words}` in {}", reply.body);
    }
    let stray = json!({"features": ["spending.spent_1h"], "entities": [{"customer": "ada"}], "context": [{"a": 1}]});
    assert!(
        server
            .post_json("/v1/features", &stray)
            .body
            .contains("take no `context`")
    );
    let alone = json!({"features": ["risk.ratio"], "entities": [{"customer": "ada"}]});
    assert!(
        server
            .post_json("/v1/features", &alone)
            .body
            .contains("feature set `risk`")
    );
    let sets = server.get("/v1/registry/feature_sets").json();
    assert!(sets.to_string().contains("risk.ratio"), "{sets}");
}

#[test]
fn the_command_line_takes_them_too() {
    let project = shop();
    let get = [
        "features",
        "get",
        "--set",
        "risk",
        "--entity",
        "customer=ada",
        "--json",
    ];
    let told = project.run_ok(
        &[
            &get[..],
            &["--context", "amount=5", "--context", "country=BE"],
        ]
        .concat(),
    );
    let reply: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(reply["rows"][0]["values"], json!([null, 0, true, -1.0]));
    let said = project.run_fails(&get);
    assert!(said.contains("`context`"), "{said}");
}

#[test]
fn check_refuses_what_cannot_be_worked_out() {
    let project = shop();
    let wrong = SET.replace("amount / (spent_1h", "amont / (spent_1h");
    project.write("features/risk.yaml", wrong);
    let said = project.run_fails(&["check"]);
    assert!(
        said.contains("did you mean `amount`?") && said.contains("risk.yaml"),
        "{said}"
    );
    let circle = SET.replace(
        "amount / (spent_1h / purchases_1h)",
        "CASE WHEN large THEN 1.0 ELSE 0.0 END",
    );
    project.write("features/risk.yaml", circle);
    let said = project.run_fails(&["check"]);
    assert!(said.contains("large → ratio → large"), "{said}");
}

const TEST: &str = "
apiVersion: headwater/v1
kind: Test
name: risky
spec:
  facts:
    purchase:
      - {id: a, customer: ada, amount: 10, time: 2026-01-15T09:00:00Z}
      - {id: b, customer: ada, amount: 30, time: 2026-01-15T09:10:00Z}
  cases:
    - as_of: 2026-01-15T09:30:00Z
      entity: {customer: ada}
      feature_set: risk
      context: {amount: 50, country: NL}
      expect: {risk.ratio: 2.5, risk.large: true, spending.spent_1h: 40}
";

#[test]
fn a_projects_tests_bring_context() {
    let project = shop();
    project.write("tests/risk.yaml", TEST);
    assert!(project.run_ok(&["test"]).contains("1 passed, 0 failed."));
    project.write("tests/risk.yaml", TEST.replace("amount: 50", "amount: 5"));
    let said = project.run(&["test"]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(
        said.contains("got       0.25 PRESENT") && said.contains("got       false PRESENT"),
        "{said}"
    );
    let wrong = [
        (
            "      feature_set: risk\n",
            "",
            "`context` needs a feature set",
        ),
        ("set: risk", "set: risc", "did you mean `risk`?"),
        ("country: NL}", "county: NL}", "did you mean `country`?"),
        (", country: NL}", "}", "`country` is missing"),
        (
            "      context: {amount: 50, country: NL}\n",
            "",
            "0 rows of 1",
        ),
        ("risk.large", "risk.larg", "did you mean `risk.large`?"),
    ];
    for (from, to, message) in wrong {
        assert!(TEST.contains(from), "{from}");
        project.write("tests/risk.yaml", TEST.replace(from, to));
        let said = project.run_fails(&["check"]);
        assert!(
            said.contains(message) && said.contains("tests/risk.yaml:"),
            "{from}: {said}"
        );
    }
}
