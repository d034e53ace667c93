//! Versions from outside: what they may be called, files that are damaged or large, versions that are let go, and what a
//! version says of its training.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use headwater_testkit::{Reply, ServerProcess, TempProject, call};
use serde_json::{Value as Json, json};

use crate::predict::{first, second, shop};

const MODEL: &str = "/v1/models/fraud";
const VERSIONS: &str = "/v1/models/fraud/versions";
const FILE: &str = "application/octet-stream";

fn add(project: &TempProject, file: &str, more: &[&str]) -> Result<String, String> {
    let told = project.run(&[&["models", "add", "fraud", file], more].concat());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match told.status.success() {
        true => Ok(text(&told.stdout)),
        false => Err(text(&told.stderr)),
    }
}

fn predicts(server: &ServerProcess) -> Reply {
    server.post_json(
        "/v1/models/fraud/predict",
        &json!({"vectors": [[1.5, "pt", 2]]}),
    )
}

/// What is answered once no view is being filled any more.
fn answered(server: &ServerProcess, asked: &Json) -> Json {
    for _ in 0..500 {
        let reply = server.post_json("/v1/models/fraud/predict", asked);
        if reply.status == 200 {
            return reply.json();
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("no answer within ten seconds");
}

/// The model files of a project.
fn files(project: &TempProject) -> Vec<PathBuf> {
    let folder = project.path().join(".headwater/models/files");
    let files = std::fs::read_dir(folder).unwrap();
    files.map(|file| file.unwrap().path()).collect()
}

fn refused(reply: &Reply, status: u16, said: &[&str]) {
    assert_eq!(reply.status, status, "{}", reply.body);
    for said in said {
        assert!(reply.body.contains(said), "{said}: {}", reply.body);
    }
}

#[test]
fn a_version_takes_no_aliass_name() {
    let project = shop(
        "  fallback: [{alias: stable}]\n  traffic: {arms: [{alias: blue, share: 0.5}], shadow: [next]}\n",
    );
    for name in ["live", "shadow", "canary", "stable", "blue", "next"] {
        let told = add(&project, "one.model", &["--version", name]).unwrap_err();
        let clash = format!("`{name}` is the name of an alias");
        for said in [clash.as_str(), "--alias"] {
            assert!(told.contains(said), "{name}: {told}");
        }
    }
    add(
        &project,
        "one.model",
        &["--version", "1", "--alias", "mine"],
    )
    .unwrap();
    let told = add(&project, "two.model", &["--version", "mine"]).unwrap_err();
    assert!(told.contains("name of an alias"), "{told}");
    // So what aliases are called stays theirs.
    for alias in ["live", "canary", "stable", "mine"] {
        project.run_ok(&["models", "promote", "fraud", "1", "--alias", alias]);
    }
    let server = ServerProcess::start(&project);
    assert_eq!(predicts(&server).status, 200);
    let body = json!({"file": STANDARD.encode(second()), "version": "canary"});
    refused(&server.post_json(VERSIONS, &body), 400, &["name-clash"]);
    assert!(server.stop());
}

#[test]
fn a_damaged_file_is_mended_by_adding_it_again() {
    let project = shop("");
    add(
        &project,
        "one.model",
        &["--version", "1", "--alias", "live", "--metric", "auc=0.9"],
    )
    .unwrap();
    let file = files(&project).remove(0);
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[1..]).unwrap();
    let server = ServerProcess::start(&project);
    refused(&predicts(&server), 503, &["model-file"]);
    let told = server.get(MODEL).body;
    assert!(told.contains("models add MODEL FILE --version 1"), "{told}");
    // As the hint says, without what was told of it then.
    let told = add(
        &project,
        "one.model",
        &["--version", "1", "--server", &server.url],
    )
    .unwrap();
    assert!(
        told.contains("serving") && told.contains("auc 0.9"),
        "{told}"
    );
    assert_eq!(predicts(&server).status, 200);
    assert!(server.stop());
    assert!(std::fs::read(&file).unwrap() == whole, "the disk");
    let server = ServerProcess::start(&project);
    assert_eq!(predicts(&server).status, 200);
    assert!(server.stop());
}

#[test]
fn versions_are_let_go_once_no_alias_points_at_them() {
    let project = shop("");
    project.write(
        "models/other.yaml",
        "\
apiVersion: headwater/v1
kind: Model
name: other
spec:
  feature_set: fraud_inputs
  inputs: {amount: scaled, country: context.country, age: spending.purchases_1h}
",
    );
    project.run_ok(&["apply"]);
    for (file, version) in [("one.model", "1"), ("two.model", "2"), ("one.model", "3")] {
        add(&project, file, &["--version", version, "--alias", "live"]).unwrap();
    }
    project.run_ok(&["models", "add", "other", "two.model"]);
    let server = ServerProcess::start(&project);
    let remove = |version: &str| {
        let url = format!("{}{VERSIONS}/{version}", server.url);
        call("DELETE", &url, None, b"")
    };
    for name in ["3", "live"] {
        refused(&remove(name), 409, &["version-in-use", "live", "promote"]);
    }
    refused(&remove("9"), 404, &["unknown-version"]);
    let gone = remove("2");
    assert_eq!(gone.status, 200, "{}", gone.body);
    let gone = gone.json();
    assert_eq!(gone["versions"].as_array().unwrap().len(), 2, "{gone}");
    // Where `live` pointed before: 1, and 2 no more.
    assert_eq!(gone["aliases"]["live"]["before"], json!(["1"]));
    assert_eq!(files(&project).len(), 2, "the other model has the file");
    let remote = ["--server", &server.url];
    project.run_ok(&[&["models", "rollback", "fraud"], &remote[..]].concat());
    let told = project.run_ok(&[&["models", "remove", "fraud", "3"], &remote[..]].concat());
    assert!(!told.contains("  3  "), "{told}");
    assert_eq!(files(&project).len(), 2, "1 has the file");
    assert_eq!(predicts(&server).json()["version"], "1");
    let record = server.get("/v1/audit?action=admin.call").body;
    assert!(record.contains(&format!("DELETE {VERSIONS}/2")), "{record}");
    assert!(server.stop());
    let listed = project.run_ok(&["models", "list", "other"]);
    let version = listed.lines().nth(1).unwrap().split_whitespace().next();
    project.run_ok(&["models", "remove", "other", version.unwrap()]);
    assert_eq!(files(&project).len(), 1);
    let record = project.run_ok(&["audit"]);
    assert!(record.contains("models.remove"), "{record}");
    // A name that is free again is taken again.
    add(&project, "two.model", &["--version", "3"]).unwrap();
}

#[test]
fn files_larger_than_a_body_are_sent_as_they_are() {
    let project = shop("");
    project.write(
        "headwater.yaml",
        "name: shop\nspec: {limits: {body_bytes_max: 20000, model_bytes_max: 40000}}\n",
    );
    let padded = |lines: usize| format!("{}{}", first(), "# notes\n".repeat(lines));
    let (large, too_large) = (padded(4000), padded(5000));
    assert!(large.len() > 20_000 && large.len() < 40_000 && too_large.len() > 40_000);
    project.write("large.model", &large);
    project.write("too-large.model", &too_large);
    let server = ServerProcess::start(&project);
    let body = json!({"file": STANDARD.encode(&large)});
    let reply = server.post_json(VERSIONS, &body);
    refused(
        &reply,
        413,
        &["body-too-large", FILE, "limits.body_bytes_max"],
    );
    let reply = server.post(VERSIONS, FILE, &large);
    assert_eq!(reply.status, 200, "{}", reply.body);
    let version = reply.json()["versions"][0].clone();
    assert_eq!(version["bytes"], json!(large.len()));
    assert!(
        version["sha256"]
            .as_str()
            .unwrap()
            .starts_with(version["version"].as_str().unwrap())
    );
    // What JSON says of it stands in front, here by hand and then by the command line.
    let details = json!({"version": "7", "aliases": ["live"], "metrics": {"auc": 0.5}}).to_string();
    let path = |bytes: usize| format!("{VERSIONS}?details_bytes={bytes}");
    let reply = server.post(&path(details.len()), FILE, format!("{details}{large}"));
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert_eq!(reply.json()["versions"][0]["metrics"], json!({"auc": 0.5}));
    assert_eq!(predicts(&server).json()["version"], "7");
    let told = add(
        &project,
        "large.model",
        &[
            "--version",
            "8",
            "--alias",
            "live",
            "--description",
            "the eighth",
            "--server",
            &server.url,
        ],
    );
    assert!(told.unwrap().contains("  8  lightgbm"));
    let eighth = server.get(MODEL).json()["versions"][0].clone();
    assert_eq!(eighth["description"], "the eighth", "{eighth}");
    assert_eq!(predicts(&server).json()["version"], "8");
    // What doesn't fit.
    let reply = server.post(VERSIONS, FILE, &too_large);
    refused(
        &reply,
        413,
        &["the model file is too large", "limits.model_bytes_max"],
    );
    let twice = json!({"file": ""}).to_string();
    let wrong = [
        (
            path(100_000),
            FILE,
            large.clone(),
            413,
            "limits.body_bytes_max",
        ),
        (
            path(15_000),
            FILE,
            "{}".to_owned(),
            400,
            "shorter than is said",
        ),
        (
            path(twice.len()),
            FILE,
            format!("{twice}{large}"),
            400,
            "there twice",
        ),
        (
            path(2),
            "application/json",
            "{}".to_owned(),
            400,
            "no file follows JSON",
        ),
        (
            VERSIONS.to_owned(),
            "application/json",
            "{}".to_owned(),
            400,
            "no model file",
        ),
        (
            format!("{VERSIONS}?version=9"),
            FILE,
            large.clone(),
            400,
            "version",
        ),
    ];
    for (path, media_type, body, status, said) in wrong {
        refused(&server.post(&path, media_type, body), status, &[said]);
    }
    assert_eq!(
        server.get(MODEL).json()["versions"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
    assert!(server.stop());
}

#[test]
fn a_version_says_what_it_was_trained_on_and_other_definitions_are_refused() {
    let project = shop("");
    project.write(
        "s.csv",
        "customer,as_of,country,factor\nada,2020-01-01T00:00:00Z,fr,1.5\n",
    );
    let make = [
        "training-set",
        "--set",
        "fraud_inputs",
        "--spine",
        "s.csv",
        "--out",
        "t.csv",
    ];
    project.run_ok(&make);
    let manifest = std::fs::read(project.path().join("t.csv.manifest.json")).unwrap();
    let manifest: Json = serde_json::from_slice(&manifest).unwrap();
    let trained = ["--training-set", "t.csv.manifest.json"];
    let added = |version: &str| {
        let named = ["--version", version, "--alias", "live"];
        add(&project, "one.model", &[&named[..], &trained[..]].concat())
    };
    added("1").unwrap();
    // All of it is kept, with the hashes of the definitions as they were then.
    let server = ServerProcess::start(&project);
    let version = server.get(MODEL).json()["versions"][0].clone();
    let kept = &version["trained_on"];
    assert_eq!(kept["training_set"], manifest);
    assert_eq!(kept["definitions"], manifest["definitions"]);
    assert!(kept["definitions"]["views/spending"].is_string(), "{kept}");
    assert_eq!(kept["feature_set"], "fraud_inputs");
    assert!(server.stop());
    // What isn't a manifest.
    project.write("no.json", "{\"rows\": 7}");
    let told = add(&project, "two.model", &["--training-set", "no.json"]).unwrap_err();
    assert!(told.contains("no manifest of a training set"), "{told}");
    // A definition that its rows were made by is another one now, though every input still means the same.
    let features = std::fs::read_to_string(project.path().join("features/shop.yaml")).unwrap();
    let other = features.replace(
        "name: purchases, aggregate: count, windows: [",
        "name: purchases, aggregate: count, windows: [17m, ",
    );
    assert_ne!(features, other);
    project.write("features/shop.yaml", other);
    project.run_ok(&["apply"]);
    let told = added("2").unwrap_err();
    for said in [
        "trained on other definitions",
        "views/spending",
        "on_changed_features",
    ] {
        assert!(told.contains(said), "{said}: {told}");
    }
    let listed = project.run_ok(&["models", "list", "fraud"]);
    assert_eq!(listed.lines().count(), 2, "{listed}");
    // Where the declaration says so it serves, and every answer says what is the matter.
    let declared = std::fs::read_to_string(project.path().join("models/fraud.yaml")).unwrap();
    project.write(
        "models/fraud.yaml",
        declared.replace(
            "  inputs: {amount",
            "  on_changed_features: warn\n  inputs: {amount",
        ),
    );
    project.run_ok(&["apply"]);
    let told = added("2").unwrap();
    assert!(told.contains("mean something else"), "{told}");
    let server = ServerProcess::start(&project);
    let asked =
        json!({"entities": [{"customer": "ada"}], "context": [{"country": "fr", "factor": 1.0}]});
    let answer = answered(&server, &asked);
    assert_eq!(answer["version"], "2");
    assert!(
        answer["warnings"]
            .to_string()
            .contains("mean something else"),
        "{answer}"
    );
    // A training set of now is one that it may have been trained on.
    assert!(server.stop());
    project.write("models/fraud.yaml", declared);
    project.run_ok(&["apply"]);
    project.run_ok(&make);
    let told = added("3").unwrap();
    assert!(
        told.contains("serving") && !told.contains("mean something else"),
        "{told}"
    );
}
