//! Rules in SQL as a model, from outside: they answer what the same expressions answer as features of the set,
//! stand beside trained models, and what is wrong with them is said before they serve.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use headwater_testkit::{ServerProcess, TempProject};
use serde_json::{Value as Json, json};

use crate::predict::{first, predictions, send_purchases, shop};
use crate::{BINARY, SHOP};

/// A set that works the same out on demand as the rules do.
const MODEL: &str = "\
apiVersion: headwater/v1
kind: FeatureSet
name: inputs
spec:
  features: ['spending.*']
  context: [{name: country, type: string}, {name: factor, type: number}]
  on_demand:
    - {name: scaled, expression: spending.spent_1h * context.factor}
    - {name: risk, expression: \"CASE WHEN scaled > 1.0 AND context.country = 'fr' THEN ln(scaled) + 1.0 / spending.purchases_1h ELSE spending.spent_1h / 7.0 END\"}
---
apiVersion: headwater/v1
kind: Model
name: ruled
spec:
  feature_set: inputs
  inputs: {spent: spending.spent_1h, purchases: spending.purchases_1h, country: context.country, factor: context.factor}
";

const RULES: &str = "\
format: headwater-rules/1
inputs:
  - {name: spent, type: number}
  - {name: purchases, type: integer}
  - {name: country, type: string, values: [de, fr]}
  - {name: factor, type: number}
outputs:
  - {name: scaled, expression: spent * factor}
  - {name: risk, expression: \"CASE WHEN scaled > 1.0 AND country = 'fr' THEN ln(scaled) + 1.0 / purchases ELSE spent / 7.0 END\"}
  - {name: review, expression: risk > 1}
";

fn project() -> TempProject {
    let project = TempProject::new(BINARY, SHOP);
    project.write("models/ruled.yaml", MODEL);
    project.write("ruled.rules", RULES);
    project.run_ok(&["apply"]);
    project
}

#[test]
fn rules_answer_what_the_same_expressions_answer_as_features() {
    let project = project();
    let told = project.run_ok(&["models", "add", "ruled", "ruled.rules", "--alias", "live"]);
    assert!(told.contains("serving"), "{told}");
    let server = ServerProcess::start(&project);
    send_purchases(&server);
    let countries = ["fr", "de", "fr", "elsewhere"];
    let customers = ["c0", "c1", "c2", "nobody"];
    let entities: Vec<Json> = customers.iter().map(|c| json!({"customer": c})).collect();
    let context: Vec<Json> = countries
        .iter()
        .map(|c| json!({"country": c, "factor": 0.25}))
        .collect();
    let asked = json!({"entities": entities, "context": context});
    let reply = server.post_json("/v1/models/ruled/predict", &asked);
    assert_eq!(reply.status, 200, "{}", reply.body);
    let answer = reply.json();
    assert_eq!(answer["degraded"], false);
    let read = server.post_json(
        "/v1/features",
        &json!({"feature_set": "inputs", "entities": entities, "context": context,
                "as_of": answer["as_of"], "known_at": answer["sequence"]}),
    );
    assert_eq!(read.status, 200, "{}", read.body);
    let read = read.json();
    let names = read["names"].as_array().unwrap();
    let place = |name: &str| names.iter().position(|n| n == name).unwrap();
    let (scaled, risk) = (place("inputs.scaled"), place("inputs.risk"));
    for (row, customer) in customers.iter().enumerate() {
        let (outputs, features) = (&answer["outputs"][row], &read["rows"][row]["values"]);
        assert_eq!(outputs["scaled"], features[scaled], "of {customer}");
        assert_eq!(outputs["risk"], features[risk], "of {customer}");
        let review = features[risk]
            .as_f64()
            .map(|risk| f64::from(u8::from(risk > 1.0)));
        assert_eq!(outputs["review"].as_f64(), review, "of {customer}");
    }
    // Not all the same, or nothing were compared.
    assert!(answer["outputs"][0]["risk"].as_f64() != answer["outputs"][1]["risk"].as_f64());
    assert!(answer["outputs"][3]["scaled"].as_f64().unwrap_or(0.0) == 0.0);
    let facts = predictions(&server, 4);
    assert!(
        facts.iter().all(|f| f["fact"]["model"] == "ruled"),
        "{facts:?}"
    );
    // The model's own inputs; a text by itself, and one that the rules don't name.
    let vectors = json!({"vectors": [[8.0, 4, "fr", 0.5], [7.0, 0, "xx", null]]});
    let raw = server
        .post_json("/v1/models/ruled/predict", &vectors)
        .json();
    assert_eq!(
        raw["outputs"][0]["risk"],
        json!(4.0_f64.ln() + 0.25),
        "{raw}"
    );
    assert_eq!(raw["outputs"][1]["risk"], json!(1.0), "{raw}");
    let half = server.post_json(
        "/v1/models/ruled/predict",
        &json!({"vectors": [[1.0, 0.5, "fr", 1.0]]}),
    );
    assert_eq!(half.status, 400, "{}", half.body);
    for said in ["model-input", "purchases", "0.5"] {
        assert!(half.body.contains(said), "{said}: {}", half.body);
    }
    assert!(server.stop());
}

#[test]
fn wrong_rules_leave_what_serves_and_a_trained_model_may_replace_them() {
    let project = project();
    let add = |file: &str, version: &str| {
        project.run(&[
            "models",
            "add",
            "ruled",
            file,
            "--version",
            version,
            "--alias",
            "live",
        ])
    };
    assert!(add("ruled.rules", "1").status.success());
    project.write("wrong.rules", RULES.replace("spent / 7.0", "spend / 7.0"));
    let wrong = add("wrong.rules", "2");
    let told = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(!wrong.status.success(), "{told}");
    for said in ["rules:9:", "`spend`", "spent"] {
        assert!(told.contains(said), "{said}: {told}");
    }
    let listed = project.run_ok(&["models", "list", "ruled"]);
    let versions: Vec<&str> = listed.lines().skip(1).collect();
    assert_eq!(versions.len(), 1, "{listed}");
    let words: Vec<&str> = versions[0].split_whitespace().collect();
    assert_eq!((words[0], words[1]), ("1", "rules"), "{listed}");
    assert!(words.ends_with(&["serving", "live"]), "{listed}");
    // What is neither is told of both, and a name goes before what the bytes look like.
    project.write("other.model", "PICKLE");
    let unknown = project.run_fails(&["models", "add", "ruled", "other.model"]);
    assert!(
        unknown.contains("lightgbm") && unknown.contains("`rules`"),
        "{unknown}"
    );
    let named = [
        "models",
        "add",
        "ruled",
        "ruled.rules",
        "--format",
        "linear",
    ];
    let named = project.run_fails(&named);
    assert!(
        named.contains("model-corrupt") || named.contains("JSON"),
        "{named}"
    );
    // Trained models and rules of the same inputs are versions of one model.
    let shop = shop("");
    shop.write(
        "fraud.rules",
        "{format: headwater-rules/1, inputs: [{name: amount, type: number}, {name: age, type: integer}, \
         {name: country, type: string, values: [fr]}], outputs: [{name: probability, expression: \"0.5\"}]}",
    );
    shop.write("one.model", first());
    for (file, version) in [("fraud.rules", "rules"), ("one.model", "trees")] {
        shop.run_ok(&[
            "models",
            "add",
            "fraud",
            file,
            "--version",
            version,
            "--alias",
            "live",
        ]);
    }
    let server = ServerProcess::start(&shop);
    let ask = |version: &str| {
        let body = json!({"entities": [{"customer": "c0"}], "version": version,
                          "context": [{"country": "fr", "factor": 1.0}]});
        server.post_json("/v1/models/fraud/predict", &body)
    };
    let trees = ask("live").json()["outputs"][0]["probability"].clone();
    assert!(trees.is_f64() && trees != json!(0.5), "{trees}");
    let back = server.post_json("/v1/models/fraud/rollback", &json!({"alias": "live"}));
    assert_eq!(back.status, 200, "{}", back.body);
    let answer = ask("live").json();
    assert_eq!(answer["outputs"][0]["probability"], json!(0.5), "{answer}");
    assert_eq!(answer["version"], "rules");
    assert!(server.stop());
}

/// What is too deep would end the process, in a model as in a feature, so it is refused before anything goes down it.
#[test]
fn deep_expressions_are_refused_and_the_server_stays() {
    let project = project();
    let server = ServerProcess::start(&project);
    let ruled = |expression: &str| {
        let (inputs, _) = RULES.split_once("outputs:").unwrap();
        let file = format!("{inputs}outputs: [{{name: risk, expression: \"{expression}\"}}]\n");
        let body = json!({"file": STANDARD.encode(file), "aliases": ["live"]});
        server.post_json("/v1/models/ruled/versions", &body)
    };
    let sum = |terms: usize| vec!["spent"; terms].join(" + ");
    let deep = [
        sum(1001),
        sum(2000),
        format!("spent{}", "::int::double".repeat(600)),
        format!(
            "{}factor > 1{}",
            "CASE WHEN ".repeat(30),
            " THEN factor > 2 END".repeat(30)
        ),
    ];
    for expression in &deep {
        let reply = ruled(expression);
        assert_eq!(reply.status, 400, "{}", reply.body);
        for said in ["problem:invalid-expression", "too large"] {
            assert!(reply.body.contains(said), "{said}: {}", reply.body);
        }
    }
    let reply = ruled(&sum(300));
    assert_eq!(reply.status, 200, "{}", reply.body);
    let asked = json!({"vectors": [[0.5, 1, "fr", 1.0]]});
    let answer = server.post_json("/v1/models/ruled/predict", &asked).json();
    assert_eq!(answer["outputs"][0]["risk"], json!(150.0), "{answer}");
    let on_demand = MODEL.replace(
        "spending.spent_1h * context.factor",
        &["context.factor"; 700].join(" + "),
    );
    project.write("models/ruled.yaml", on_demand);
    let refused = project.run_fails(&["apply", "--server", &server.url]);
    assert!(refused.contains("400 levels"), "{refused}");
    assert_eq!(server.get("/health/ready").status, 200);
    assert!(server.stop());
}
