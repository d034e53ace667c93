//! Targets that read a project's own files beside its definitions: its settings and the tests of its definitions.

use std::path::Path;

use headwater::settings::{contradictions, set_limits};
use headwater::{Config, FixtureTest, PROJECT_FILE, Project};
use headwater_env::Env;
use headwater_schema::yaml::YamlDocument;

use super::Target;
use super::documents::CATALOG;

const SETTINGS: &str = "\
apiVersion: headwater/v1
kind: Project
name: shop
owner: people
spec:
  data_dir: data
  listen: 127.0.0.1:8080
  grpc_listen: '[::1]:8081'
  ingest: {sync: interval, sync_interval_ms: 50, segment_bytes_max: 1000000}
  state: {memory_bytes_max: 0, shards: 2, checkpoint_facts: 10}
  archive: {url: 'file:///srv/facts', every: 1h, after: 7d}
  training_sets: {memory_bytes_max: 1000000}
  query: {timeout_ms: 1000, rows_max: 7}
  serving: {cache_entries_max: 0}
  webhooks: {models_max: 1}
  limits: {rows_max: 10, feeds_max: 0, row_bytes_max: 1000}
  auth:
    keys_file: keys.json
    keys: [{id: robot, roles: [read], sha256: ZEROS, expires: '2027-01-31T00:00:00Z'}]
  audit: {file_bytes_max: 1000, files_max: 2}
  tls: {certificate_file: cert.pem, key_file: key.pem}
  telemetry:
    logs: {format: json, level: 'warn,headwater=debug'}
    traces: {endpoint: 'http://127.0.0.1:4318/v1/traces', sample_ratio: 0.5}
";

/// Settings that are taken are written as they were read, whatever they are.
pub const CONFIG: Target = Target {
    name: "config",
    seeds: || {
        let whole = SETTINGS.replace("ZEROS", &format!("'{}'", "0".repeat(64)));
        vec![b"name: shop\n".to_vec(), whole.into_bytes()]
    },
    words: &[
        "spec: ",
        "limits: ",
        "null",
        "{}",
        "[]",
        "-1",
        "0",
        "18446744073709551616",
        "1e999",
        "sync: always",
        "every: 9999999999w",
        "roles: [admin]",
        "level: 'a[b]=c'",
        "endpoint: ",
        "---\n",
        "kind: Project",
        "kind: Entity",
        "&a ",
        "*a",
        "\t",
    ],
    run: |input| {
        let (env, _, _) = Env::simulated(1);
        let folder = Path::new("/project");
        let written = env.files.write_atomic(&folder.join(PROJECT_FILE), input);
        written.expect("written");
        let Ok(config) = Project::config(&env, folder) else {
            return false;
        };
        let told = serde_json::to_value(&config).expect("JSON");
        let again: Config = serde_json::from_value(told.clone()).expect("what was read");
        assert_eq!(serde_json::to_value(&again).expect("JSON"), told);
        // What doctor says of them.
        let _told = (set_limits(&config.spec), contradictions(&config.spec));
        true
    },
};

const IN_ORDER: &str = "\
apiVersion: headwater/v1
kind: Test
name: a_morning
spec:
  facts:
    - every: [{id: a1, who: ada, amount: 1.5, time: 2026-01-15T09:00:00Z}]
    - visit: [{id: v1, who: ada, spent: 2, time: 2026-01-15T09:00:01Z}, {id: v2, spent: much, time: 0}]
  rejected: [{contract: visit, row: 1, field: spent}]
  cases:
    - name: of everything
      as_of: 2026-01-15T09:30:00Z
      known_at: 2
      inclusive: false
      entity: {person: ada, shop: north}
      feature_set: everything
      context: {asked: 2.5, channel: web}
      expect:
        tastes.visits_1h: 1
        tastes.paid_1h: {value: 2.5, tolerance: 0.1}
        everything.odd: {value: true, status: PRESENT}
      labels: {comes_back: true, spends: {value: 2, tolerance: 0.1}}
      labels_as_of: 1769855000000000
";
const BY_CONTRACT: &str = "\
apiVersion: headwater/v1
kind: Test
name: nobody
spec:
  facts: {every: []}
  cases:
    - {as_of: 0, entity: {who: eve}, expect: {habits.seen_1m: 0, habits.mean_7d: {status: NOT_FOUND}}}
";

/// A test is refused with everything that is wrong with it, each with its place, or names only what there is.
pub const TEST: Target = Target {
    name: "test",
    seeds: || {
        [IN_ORDER, BY_CONTRACT]
            .map(|text| text.as_bytes().to_vec())
            .to_vec()
    },
    words: &[
        "cases: ",
        "facts: ",
        "- ",
        "{}",
        "[]",
        "null",
        "as_of: '2026-13-01'",
        "status: PRESENT",
        "tolerance: -1",
        "tolerance: 1e999",
        "known_at: -1",
        "labels: {}",
        "context: []",
        "feature_set: all",
        "---\n",
        "kind: Test",
    ],
    run: |input| {
        let Ok(text) = std::str::from_utf8(input) else {
            return false;
        };
        let Ok(documents) = YamlDocument::parse_all("tests.yaml", text) else {
            return false;
        };
        let mut accepted = !documents.is_empty();
        for document in &documents {
            if let Err(problems) = FixtureTest::read(document, &CATALOG) {
                accepted = false;
                assert!(!problems.is_empty(), "refused for no reason");
                let placed = problems.iter().all(|p| p.location.is_some());
                assert!(placed, "refused nowhere: {problems:?}");
            }
        }
        accepted
    },
};
