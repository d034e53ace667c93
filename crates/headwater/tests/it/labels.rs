//! Labels from outside: the outcome columns of training sets, held to what the facts say one by one; what rows
//! of training sets say, held to live reads.

use arrow::array::RecordBatch;
use headwater::Engine;
use headwater_aggregate::oracle::{OracleFact, evaluate};
use headwater_aggregate::{Aggregate, Window, WindowKind};
use headwater_api::backend::{Names, TrainingSetRequest};
use headwater_schema::decode::{BodyFormat, read_record_batches};
use headwater_schema::{Cursor, DataType, Value};
use headwater_testkit::{ServerProcess, TempProject};
use serde_json::{Value as Json, json};

use crate::harness::{Live, SECOND, bits, is_inclusive};
use crate::{BINARY, SHOP};

/// Of the shop's purchases.
pub const LABELS: &str = "
---
apiVersion: headwater/v1
kind: Label
name: next_amount
spec: {contract: purchase, match: customer, horizon: 9s, value: amount}
---
apiVersion: headwater/v1
kind: Label
name: many
spec: {contract: purchase, match: {customer: customer}, condition: amount > 1, horizon: 20s, aggregate: count, early_negative: true}
---
apiVersion: headwater/v1
kind: Label
name: spends
spec: {contract: purchase, match: customer, horizon: 15s, aggregate: sum, value: amount, otherwise: -1, early_negative: true}
---
apiVersion: headwater/v1
kind: Label
name: comes_back
owner: sales
spec: {contract: purchase, match: [customer], horizon: 5s, otherwise: false}
";

/// How a live read was asked for.
pub struct Seen {
    pub customer: u8,
    pub second: i64,
    pub inclusive: bool,
    pub known_at: u64,
}

impl Seen {
    pub fn of((customer, cursor, _): &Live) -> Self {
        Self {
            customer: customer[1..].parse().expect("c and a number"),
            second: cursor.as_of / SECOND,
            inclusive: is_inclusive(cursor),
            known_at: cursor.known_at,
        }
    }
}

/// The table that a spine in CSV gives.
fn table(
    engine: &Engine,
    spine: &str,
    request: impl FnOnce(&mut TrainingSetRequest),
) -> RecordBatch {
    let mut asked = TrainingSetRequest {
        names: Names::List(Vec::new()),
        inclusive: false,
        known_at: None,
        facts_until: None,
        time: "as_of".to_owned(),
        labels: Vec::new(),
        labels_as_of: None,
    };
    request(&mut asked);
    let bytes = engine.training_set(&asked, BodyFormat::Csv, spine.as_bytes());
    let bytes = bytes.expect("made");
    let batches = read_record_batches(BodyFormat::ArrowStream, &bytes).expect("read");
    let batches: Vec<RecordBatch> = batches.map(Result::unwrap).collect();
    arrow::compute::concat_batches(&batches[0].schema(), &batches).expect("one table")
}

fn column(table: &RecordBatch, name: &str) -> Vec<Value> {
    let column = table.column_by_name(name).expect(name);
    (0..table.num_rows())
        .map(|row| Value::from_array(column, row))
        .collect()
}

/// Holds the rows of training sets to live reads at the same cursors, bit for bit. `key` is the column of the
/// entities' keys.
pub fn assert_rows(engine: &Engine, names: &[String], key: &str, reads: &[Live]) {
    for inclusive in [false, true] {
        let reads = || {
            let all = reads.iter();
            all.filter(move |(_, cursor, _)| is_inclusive(cursor) == inclusive)
        };
        if reads().count() == 0 {
            continue;
        }
        let row =
            |(entity, cursor, _): &Live| format!("{entity},{},{}\n", cursor.as_of, cursor.known_at);
        let spine: String = reads().map(row).collect();
        let spine = format!("{key},as_of,known_at\n{spine}");
        let table = table(engine, &spine, |asked| {
            asked.names = Names::List(names.to_vec());
            asked.inclusive = inclusive;
        });
        for (index, name) in names.iter().enumerate() {
            let made = column(&table, name);
            for (made, (entity, cursor, live)) in made.iter().zip(reads()) {
                let live = bits(&live.values[index]);
                assert_eq!(bits(made), live, "{name} of {entity} at {cursor:?}");
            }
        }
    }
}

/// Holds labels to the facts that came between a row's time and its horizon. `facts` are those of each customer.
pub fn assert_labels(engine: &Engine, facts: &[Vec<OracleFact>], reads: &[Live]) {
    let rows: Vec<(usize, i64)> = reads
        .iter()
        .map(|read| (usize::from(Seen::of(read).customer), read.1.as_of))
        .collect();
    let lines: String = rows.iter().map(|(c, t)| format!("c{c},{t}\n")).collect();
    let spine = format!("customer,as_of\n{lines},5000000\n");
    for labels_as_of in [i64::MAX, rows[0].1, rows[rows.len() / 2].1 + 4 * SECOND] {
        let table = table(engine, &spine, |asked| {
            asked.names = Names::List(vec!["random.count_7s".to_owned()]);
            asked.labels = ["many", "next_amount", "spends", "comes_back"]
                .map(str::to_owned)
                .to_vec();
            asked.labels_as_of = Some(labels_as_of);
        });
        let made = |name: &str| column(&table, name);
        let (many, next, spends, back) = (
            made("many"),
            made("next_amount"),
            made("spends"),
            made("comes_back"),
        );
        for (row, (customer, t)) in rows.iter().enumerate() {
            let within = |horizon: i64| -> Vec<OracleFact> {
                let until = (t + horizon * SECOND).min(labels_as_of);
                let counts = |f: &&OracleFact| {
                    let at = f.position.event_time;
                    f.removed_at.is_none() && *t < at && at <= until
                };
                let mut found: Vec<OracleFact> =
                    facts[*customer].iter().filter(counts).cloned().collect();
                found.sort_by_key(|f| f.position);
                found
            };
            let is_final = |horizon: i64| t + horizon * SECOND <= labels_as_of;
            let begun = *t <= labels_as_of;
            let about = format!("c{customer} at {t} as of {labels_as_of}");

            let mut dear = within(20);
            dear.retain(|f| matches!(f.value, Value::Float(a) if a > 1.0));
            let want = Value::Int(dear.len() as i64);
            let want = if begun { want } else { Value::Null };
            assert_eq!(many[row], want, "many, {about}");

            let first = within(9).first().map(|f| f.value.clone());
            let want = first.filter(|_| is_final(9)).unwrap_or(Value::Null);
            assert_eq!(bits(&next[row]), bits(&want), "next_amount, {about}");

            let lifetime = Window::new(WindowKind::Lifetime);
            let (all, number) = (Cursor::inclusive(i64::MAX), DataType::Float64);
            let sum = evaluate(&within(15), &Aggregate::Sum, true, &number, &lifetime, &all);
            let want = match (begun, sum.value) {
                (false, _) => Value::Null,
                (true, Value::Null) => Value::Float(-1.0),
                (true, sum) => sum,
            };
            assert_eq!(bits(&spends[row]), bits(&want), "spends, {about}");

            let came = Value::Bool(!within(5).is_empty());
            let want = if is_final(5) { came } else { Value::Null };
            assert_eq!(back[row], want, "comes_back, {about}");
        }
        for name in ["many", "next_amount", "spends", "comes_back"] {
            let nobody = column(&table, name).pop();
            assert_eq!(nobody, Some(Value::Null), "a row about nobody");
        }
    }
}

fn shop() -> TempProject {
    let project = TempProject::new(BINARY, SHOP);
    project.write("models/labels.yaml", LABELS.trim_start_matches("\n---"));
    project.run_ok(&["apply"]);
    let fact = |id: u8, who: &str, amount: f64, second: i64| {
        let time = second * SECOND;
        json!({"id": id.to_string(), "customer": who, "amount": amount, "time": time}).to_string()
    };
    let facts = [
        fact(1, "ada", 1.0, 10),
        fact(2, "ada", 2.5, 12),
        fact(3, "bob", 4.0, 30),
        fact(4, "ada", 8.0, 15),
    ];
    project.write("facts.ndjson", facts.join("\n"));
    project.run_ok(&["ingest", "purchase", "facts.ndjson"]);
    project.write("spine.csv", SPINE);
    project
}

const SPINE: &str = "customer,as_of\nada,10000000\nbob,10000000\nbob,26000000\n";

#[test]
fn labels_come_by_command_line_and_http_and_are_made_again() {
    let project = shop();
    assert!(project.run_ok(&["check"]).contains("4 labels"));
    let read = |name: &str| std::fs::read(project.path().join(name)).unwrap();
    let make = |out: &str, more: &[&str]| {
        let first = ["training-set", "--spine", "spine.csv", "--out", out];
        project.run_ok(&[&first, more].concat());
    };
    let labels = [
        "--feature",
        "spending.purchases_1h",
        "--label",
        "comes_back",
        "--label",
        "next_amount",
    ];
    make("a.csv", &labels);
    let whole = "customer,as_of,spending.purchases_1h,comes_back,next_amount\n\
        ada,1970-01-01T00:00:10Z,0,true,2.5\n\
        bob,1970-01-01T00:00:10Z,0,false,\n\
        bob,1970-01-01T00:00:26Z,0,true,4.0\n";
    assert_eq!(String::from_utf8(read("a.csv")).unwrap(), whole);
    let early = [&labels[..], &["--labels-as-of", "1970-01-01T00:00:34Z"]].concat();
    make("b.csv", &early);
    let some = whole.replace("0,true,4.0", "0,true,");
    assert_eq!(String::from_utf8(read("b.csv")).unwrap(), some);
    let manifest: Json = serde_json::from_slice(&read("b.csv.manifest.json")).unwrap();
    assert_eq!(manifest["labels"], json!(["comes_back", "next_amount"]));
    assert_eq!(manifest["labels_as_of"], json!(34 * SECOND));
    assert_eq!(manifest["nulls"]["next_amount"], json!(2));
    assert!(manifest["definitions"]["labels/comes_back"].is_string());

    // Outcomes that come later change nothing that is made again.
    let late = json!({"id": "9", "customer": "ada", "amount": 3, "time": 11 * SECOND}).to_string();
    project.write("late.ndjson", late);
    project.run_ok(&["ingest", "purchase", "late.ndjson"]);
    make("c.csv", &["--manifest", "b.csv.manifest.json"]);
    assert!(read("c.csv") == read("b.csv"), "other bytes");
    make("c.csv", &early);
    assert!(
        String::from_utf8(read("c.csv"))
            .unwrap()
            .contains("0,true,3.0")
    );

    let server = ServerProcess::start(&project);
    let path = "/v1/training-sets?features=spending.purchases_1h&labels=comes_back,next_amount&labels_as_of=1970-01-01T00:00:34Z";
    let reply = server.post(path, "text/csv", SPINE);
    assert_eq!(reply.status, 200, "{}", reply.body);
    let batches = read_record_batches(BodyFormat::ArrowStream, &reply.bytes).unwrap();
    let table = batches.map(Result::unwrap).next().unwrap();
    let amounts = column(&table, "next_amount");
    assert_eq!(amounts, [Value::Float(3.0), Value::Null, Value::Null]);
    let reply = server.post(&path.replace("comes_back", "came_back"), "text/csv", SPINE);
    assert_eq!(reply.status, 404, "{}", reply.body);
    assert!(
        reply.body.contains("did you mean `comes_back`?"),
        "{}",
        reply.body
    );
    let listed = server.get("/v1/registry/labels").json();
    assert_eq!(listed[0]["name"], json!("comes_back"));
    assert_eq!(listed[0]["match"], json!({"customer": "customer"}));
    assert_eq!(listed[0]["horizon"], json!("5s"));
    assert!(server.stop());

    project.write(
        "models/labels.yaml",
        LABELS.trim_start_matches("\n---").replace("5s", "6s"),
    );
    let planned = project.run_ok(&["plan"]);
    assert!(planned.contains("label comes_back"), "{planned}");
    project.run_ok(&["apply"]);
    let again = [
        "training-set",
        "--manifest",
        "b.csv.manifest.json",
        "--spine",
        "spine.csv",
        "--out",
        "d.csv",
    ];
    assert!(project.run_fails(&again).contains("labels/comes_back"));
}

#[test]
fn work_that_nobody_waits_for_ends_and_gives_its_place_to_others() {
    let project = shop();
    let settings =
        "name: shop\nspec: {limits: {training_set_ms_max: 400}, training_sets: {running_max: 1}}\n";
    project.write("headwater.yaml", settings);
    let server = ServerProcess::start(&project);
    let path = "/v1/training-sets?feature_set=customer_now&labels=comes_back";
    let rows = |count: u32| -> String {
        let rows = (0..count).map(|i| format!("c{i},{}\n", i64::from(i) * SECOND));
        format!("customer,as_of\n{}", rows.collect::<String>())
    };
    let reply = server.post(path, "text/csv", rows(600_000));
    assert_eq!(reply.status, 504, "{}", reply.body);
    let small = rows(1);
    let again = || {
        std::thread::sleep(std::time::Duration::from_millis(50));
        server.post(path, "text/csv", &small).status
    };
    let replies = (0..400).map(|_| again());
    assert!(replies.into_iter().any(|status| status == 200));
    assert!(server.stop());

    let engine = crate::open_engine(
        &headwater::Config::named("shop"),
        &project.path().join(".headwater"),
    );
    let request = TrainingSetRequest {
        names: Names::Set("customer_now".to_owned()),
        inclusive: false,
        known_at: None,
        facts_until: None,
        time: "as_of".to_owned(),
        labels: vec!["comes_back".to_owned()],
        labels_as_of: None,
    };
    let stop = headwater_batch::Stop::default();
    let make = || {
        let (mut spine, mut out) = (Some(SPINE.as_bytes().to_vec()), Vec::new());
        let mut pieces = || Ok(spine.take());
        engine.stream_training_set(&request, BodyFormat::Csv, &mut pieces, &stop, &mut out)
    };
    assert_eq!(make().map_err(|e| e.code), Ok(()));
    stop.stop();
    let made = make();
    assert_eq!(made.unwrap_err().code, "stopped");
}

#[test]
fn what_labels_and_spines_do_not_share_is_named() {
    let project = shop();
    let cases = [
        ("who,as_of\nada,1\n", "comes_back", "no column `customer`"),
        (
            "customer,as_of,comes_back\nada,1,1\n",
            "comes_back",
            "two columns are called `comes_back`",
        ),
        (
            "customer,as_of\nada,1\n",
            "came_back",
            "no label `came_back`",
        ),
    ];
    for (spine, label, words) in cases {
        project.write("s.csv", spine);
        let arguments = [
            "training-set",
            "--spine",
            "s.csv",
            "--out",
            "t.csv",
            "--label",
            label,
        ];
        // No feature asks for the customer.
        let said = project.run_fails(&[&arguments[..], &["--feature", "spending.last"]].concat());
        assert!(said.contains(words), "no `{words}` in {said}");
    }
    assert!(!project.path().join("t.csv").exists());
}
