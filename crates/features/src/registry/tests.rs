//! What the registry stores and gives again.

use headwater_schema::yaml::YamlDocument;

use super::*;

fn documents(yaml: &str) -> Documents {
    Documents::from_yaml(&YamlDocument::parse_all("a.yaml", yaml).unwrap())
}

const ENTITY: &str = "apiVersion: headwater/v1\nkind: Entity\nname: plane\nowner: ops\nspec: {keys: [{name: tail, type: string}]}\n";

#[test]
fn a_hash_depends_on_what_is_said_and_not_on_how_it_is_written() {
    let other = "# a comment\nspec:\n  keys:\n    - type: string\n      name: \"tail\"\nowner: ops\nname: plane\nkind: Entity\napiVersion: headwater/v1\n";
    let hash = |yaml: &str| documents(yaml).definitions()[0].hash();
    assert_eq!(hash(ENTITY), hash(other));
    assert_ne!(hash(ENTITY), hash(&ENTITY.replace("ops", "sales")));
    // Stored hashes are compared with new ones: the function may never change.
    assert_eq!(hash(ENTITY), "1b22c42cf4efd651");
}

#[test]
fn each_change_makes_the_next_version_and_is_kept() {
    let kind = DefinitionKind::Entity;
    let first = Registry::default().next(documents(ENTITY), Some(10));
    let same = first.next(documents(&format!("# again\n{ENTITY}")), Some(20));
    assert_eq!((same.version(), same.applied_at()), (1, Some(10)));
    let second = same.next(documents(&ENTITY.replace("ops", "sales")), Some(30));
    let dropped = second.next(documents(""), Some(40));
    assert!(dropped.current(kind, "plane").is_none());
    let back = dropped.next(documents(ENTITY), Some(50));
    let told: Vec<_> = back
        .versions(kind, "plane")
        .iter()
        .map(|v| (v.version, v.registry, v.applied_at, v.document.is_some()))
        .collect();
    let expected = [
        (1, 1, 10, true),
        (2, 2, 30, true),
        (3, 3, 40, false),
        (4, 4, 50, true),
    ];
    assert_eq!(told, expected.map(|(v, r, t, d)| (v, r, Some(t), d)));
    assert_eq!(
        back.versions(kind, "plane")[0].hash,
        back.versions(kind, "plane")[3].hash
    );
    let mut many = back;
    for round in 0..2 * VERSIONS_MAX {
        many = many.next(
            documents(&ENTITY.replace("ops", &format!("o{round}"))),
            Some(60),
        );
    }
    let versions = many.versions(kind, "plane");
    assert_eq!((versions.len(), versions[0].version), (VERSIONS_MAX, 105));
    assert_eq!(
        Registry::from_bytes(&many.to_bytes().unwrap()).unwrap(),
        many
    );
}

#[test]
fn the_first_format_is_read_and_others_are_refused() {
    let stored = documents(ENTITY);
    let first = serde_json::json!({"format": 1, "documents": stored});
    let read = Registry::from_bytes(first.to_string().as_bytes()).unwrap();
    assert_eq!(read.documents(), &stored);
    let version = read.current(DefinitionKind::Entity, "plane").unwrap();
    assert_eq!((version.version, version.applied_at), (1, None));
    let later = br#"{"format": 3, "documents": []}"#;
    assert_eq!(
        Registry::from_bytes(later).unwrap_err().code,
        "registry-format"
    );
    assert_eq!(
        Registry::from_bytes(b"{").unwrap_err().code,
        "registry-corrupt"
    );
}

#[test]
fn a_document_with_two_contracts_makes_two_definitions() {
    let yaml = "kind: DataContract\nteam: {name: ops}\ntags: [air]\nschema:\n  - {name: a, description: one, tags: [first]}\n  - {name: b}\n";
    let definitions = documents(yaml).definitions();
    assert_eq!(definitions.len(), 2);
    assert_eq!(definitions[0].tags, ["air", "first"]);
    assert_eq!(definitions[1].owner.as_deref(), Some("ops"));
    let changed = documents(&yaml.replace("one", "two")).definitions();
    assert_ne!(definitions[0].hash(), changed[0].hash());
    assert_eq!(definitions[1].hash(), changed[1].hash());
}
