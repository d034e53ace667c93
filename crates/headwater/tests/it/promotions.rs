//! Aliases moved a thousand times while others ask: every request is answered, by one version from its beginning to its
//! end, and whoever asks after a promotion was acknowledged is answered by the version that it named.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use headwater_models::{LoadOptions, Predictor, Rows, load};
use headwater_testkit::{Client, ServerProcess};
use serde_json::{Value as Json, json};

use crate::predict::{first, oracle, predictions, second, send_purchases, shop};

const PROMOTIONS: usize = 1000;
/// Threads that ask while aliases move, each with a connection of its own.
const ASKERS: usize = 4;
/// A second model with the same files, whose answers are remembered.
const REMEMBERED: &str = "---
apiVersion: headwater/v1
kind: Model
name: remembered
spec:
  feature_set: fraud_inputs
  inputs: {amount: scaled, country: context.country, age: spending.purchases_1h}
  cache: {}
";
const MODELS: [&str; 2] = ["fraud", "remembered"];
/// Nobody of that name ever bought anything, so what is known of them never changes.
const STRANGER: &str = "nobody";
/// Machines that run tests may be slow; nobody is to fail for that.
const DEADLINE_MS: u64 = 30_000;

/// A request, and what each version has to answer to it, row by row, as bits.
struct Question {
    /// Behind a model's path.
    call: &'static str,
    root: &'static str,
    body: String,
    wanted: [Vec<u64>; 2],
}

fn post(client: &Client, server: &ServerProcess, path: &str, body: &str) -> Json {
    let url = format!("{}{path}", server.url);
    let headers = [("content-type", "application/json")];
    let reply = client.call("POST", &url, &headers, body.as_bytes());
    assert_eq!(reply.status, 200, "{path} {body}: {}", reply.body);
    reply.json()
}

/// The version that says that it answered, and the bits of the rows' outputs.
fn read(answer: &Json) -> (String, Vec<u64>) {
    let bits = |number: &Json| number.as_f64().unwrap().to_bits();
    match answer.get("outputs").map(|outputs| &outputs[0]["data"]) {
        // The Open Inference Protocol's.
        Some(Json::Array(numbers)) => {
            assert_eq!(answer["parameters"], Json::Null, "{answer}");
            let version = answer["model_version"].as_str().unwrap();
            (version.to_owned(), numbers.iter().map(bits).collect())
        }
        _ => {
            assert_eq!(answer["degraded"], false, "{answer}");
            let rows = answer["outputs"].as_array().unwrap().iter();
            let rows = rows.map(|row| bits(row.as_object().unwrap().values().next().unwrap()));
            let version = answer["version"].as_str().unwrap();
            (version.to_owned(), rows.collect())
        }
    }
}

/// Rows of vectors, of entities, and a tensor: what the files themselves say of them.
fn questions(server: &ServerProcess) -> Vec<Question> {
    let files = [first(), second()].map(|f| load(f.as_bytes(), &LoadOptions::default()).unwrap());
    let countries = ["de", "fr", "pt"];
    let vector = |n: usize| [n as f64 * 0.75, (n % 3) as f64, (n % 11) as f64];
    let vectors: Vec<[f64; 3]> = (0..40).map(vector).collect();
    let score = |model: &dyn Predictor, row: &[f64]| {
        let answer = model.predict(Rows::one(row).unwrap());
        answer.unwrap().outputs[0].to_bits()
    };
    let wanted = |model: &dyn Predictor| -> Vec<u64> {
        vectors.iter().map(|row| score(model, row)).collect()
    };
    let named = vectors.iter().map(|[amount, country, age]| {
        let country = countries[*country as usize];
        json!([amount, country, age])
    });
    let named: Vec<Json> = named.collect();
    let column = |name: &str, datatype: &str, place: usize| {
        let data: Vec<&Json> = named.iter().map(|row| &row[place]).collect();
        json!({"name": name, "datatype": datatype, "shape": [40], "data": data})
    };
    let tensors = json!({
        "inputs": [column("amount", "FP64", 0), column("country", "BYTES", 1), column("age", "FP64", 2)],
        "parameters": {"timeout": DEADLINE_MS * 1000},
    });
    let context = json!({"country": "fr", "factor": 0.25});
    let entities = json!({
        "entities": vec![json!({"customer": STRANGER}); 3], "context": vec![&context; 3], "deadline_ms": DEADLINE_MS,
    });
    let path = "/v1/models/fraud/predict";
    let like = post(&Client::default(), server, path, &entities.to_string());
    let of_stranger =
        |model: &dyn Predictor| vec![oracle(model, server, STRANGER, "fr", &like).to_bits(); 3];
    let vectors = json!({"vectors": named, "deadline_ms": DEADLINE_MS});
    let question = |root, call, body: Json, wanted: [Vec<u64>; 2]| {
        let differ = wanted[0].iter().zip(&wanted[1]).all(|(a, b)| a != b);
        assert!(differ, "the versions can't be told apart: {wanted:?}");
        let body = body.to_string();
        Question {
            call,
            root,
            body,
            wanted,
        }
    };
    let (ones, twos) = (
        files.each_ref().map(|model| wanted(model.as_ref())),
        files.each_ref().map(|model| of_stranger(model.as_ref())),
    );
    vec![
        question("/v1", "predict", vectors, ones.clone()),
        question("/v1", "predict", entities, twos),
        question("/v2", "infer", tensors, ones),
    ]
}

/// Asks once, and holds the answer to what the version that it names says; that version.
fn ask(client: &Client, server: &ServerProcess, model: &str, question: &Question) -> String {
    let path = format!("{}/models/{model}/{}", question.root, question.call);
    let (version, bits) = read(&post(client, server, &path, &question.body));
    let place = version.parse::<usize>().unwrap() - 1;
    assert_eq!(bits, question.wanted[place], "{path} of version {version}");
    version
}

/// Moves `live` of a model to and fro, and asks after each move.
fn promote(server: &ServerProcess, model: &str, questions: &[Question]) {
    let client = Client::default();
    let mut live = 1;
    for turn in 0..PROMOTIONS {
        let other = 3 - live;
        let (call, body) = match turn % 3 {
            2 => ("rollback", json!({})),
            _ => ("promote", json!({ "version": other.to_string() })),
        };
        post(
            &client,
            server,
            &format!("/v1/models/{model}/{call}"),
            &body.to_string(),
        );
        live = other;
        let answered = ask(&client, server, model, &questions[turn % questions.len()]);
        assert_eq!(answered, live.to_string(), "{model} after {call} {turn}");
    }
}

#[test]
fn a_thousand_promotions_under_load_fail_nobody_and_mix_nothing() {
    let project = shop(REMEMBERED);
    for model in MODELS {
        // No alias points at the second: it is loaded by its promotion, and the first let go.
        let add =
            |file, version| project.run_ok(&["models", "add", model, file, "--version", version]);
        add("one.model", "1");
        add("two.model", "2");
        project.run_ok(&["models", "promote", model, "1"]);
    }
    let server = ServerProcess::start(&project);
    send_purchases(&server);
    let questions = questions(&server);
    let done = AtomicBool::new(false);
    let moving = AtomicUsize::new(MODELS.len());
    let seen = std::thread::scope(|scope| {
        for model in MODELS {
            let (server, questions, done, moving) = (&server, &questions, &done, &moving);
            scope.spawn(move || {
                // Whoever asks ends, also where this fails.
                let last = Last { moving, done };
                promote(server, model, questions);
                drop(last);
            });
        }
        let asking: Vec<_> = (0..ASKERS)
            .map(|asker| {
                let (server, questions, done) = (&server, &questions, &done);
                scope.spawn(move || {
                    let client = Client::default();
                    let mut seen = [[0; 2]; MODELS.len()];
                    let mut turn = asker;
                    while !done.load(Ordering::SeqCst) {
                        let (model, question) = (turn % MODELS.len(), turn % questions.len());
                        let version = ask(&client, server, MODELS[model], &questions[question]);
                        seen[model][usize::from(version == "2")] += 1;
                        turn += 1;
                    }
                    seen
                })
            })
            .collect();
        let seen = asking.into_iter().map(|asker| asker.join().unwrap());
        seen.collect::<Vec<_>>()
    });
    // Each of them was answered by each version of each model: the load was there while aliases moved.
    for of_one in &seen {
        assert!(
            of_one.iter().flatten().all(|answers| *answers > 5),
            "{seen:?}"
        );
    }
    assert_facts(&server, &questions);
    assert!(server.stop());
}

/// Says that nobody moves aliases any more, once the last of those who did has gone.
struct Last<'a> {
    moving: &'a AtomicUsize,
    done: &'a AtomicBool,
}

impl Drop for Last<'_> {
    fn drop(&mut self) {
        let left = self.moving.fetch_sub(1, Ordering::SeqCst) - 1;
        if left == 0 || std::thread::panicking() {
            self.done.store(true, Ordering::SeqCst);
        }
    }
}

/// What was kept of the answers says the same: the version, and what that version answers.
fn assert_facts(server: &ServerProcess, questions: &[Question]) {
    let mut versions = [0; 2];
    for fact in predictions(server, 1000) {
        let fact = &fact["fact"];
        let place = fact["version"].as_str().unwrap().parse::<usize>().unwrap() - 1;
        let row = fact["row"].as_u64().unwrap() as usize;
        let output = fact["outputs"]
            .as_object()
            .unwrap()
            .values()
            .next()
            .unwrap();
        let output = match output {
            Json::Array(numbers) => &numbers[0],
            number => number,
        };
        let bits = match output {
            Json::String(text) => text.parse::<f64>().unwrap().to_bits(),
            number => number.as_f64().unwrap().to_bits(),
        };
        // By vectors there are no entities.
        let question = &questions[usize::from(fact["entities"].is_object())];
        let wanted = question.wanted[place].get(row);
        assert_eq!(Some(&bits), wanted, "{fact}");
        versions[place] += 1;
    }
    assert!(versions.iter().all(|seen| *seen > 0), "{versions:?}");
}
