//! Keys at the door: what opens it, what doesn't, and what is told of it.

use super::*;

fn record(id: &str, roles: &[Role]) -> KeyRecord {
    KeyRecord {
        id: id.into(),
        roles: roles.to_vec(),
        sha256: hash_key(id),
        expires: None,
    }
}

fn door(keys: Vec<KeyRecord>, per_key_max: usize, clock: Arc<dyn Clock>) -> Authorizer {
    let audit = Arc::new(crate::audit::Unheard);
    Authorizer::new(keys, false, per_key_max, clock, audit).unwrap()
}

#[test]
fn a_key_is_refused_from_the_moment_it_expires() {
    let clock = Arc::new(headwater_env::SimulatedClock::default());
    let mut key = record("r", &[Role::Read]);
    key.expires = Some("1970-01-01T00:00:02Z".into());
    let door = door(vec![key.clone()], 10, clock.clone());
    let enter = || door.authorize(&mut call("/metrics", Some(("x-api-key", "r"))));
    clock.set(1_999_999);
    assert!(enter().is_ok());
    clock.set(2_000_000);
    let problem = enter().err().unwrap();
    assert_eq!(problem.code, "unauthenticated");
    assert!(problem.detail.contains("expired at 1970-01-01T00:00:02Z"));
    let wrong = door.authorize(&mut call("/metrics", Some(("x-api-key", "q"))));
    assert!(wrong.err().unwrap().detail.contains("isn't known"));
    // The same key for longer is another entry of the file.
    key.expires = Some("1970-01-01T00:00:03Z".into());
    door.replace(vec![key.clone()]).unwrap();
    assert!(enter().is_ok());
    key.expires = Some("tomorrow".into());
    assert_eq!(door.replace(vec![key]).unwrap_err().code, "invalid-key");
    assert!(enter().is_ok(), "what can't be read changes nothing");
}

#[derive(Default)]
struct Heard(std::sync::Mutex<Vec<(String, String)>>);

impl Audit for Heard {
    fn record(&self, event: &AuditEvent) {
        let mut heard = self.0.lock().unwrap();
        heard.push((event.actor.clone(), event.result.clone()));
    }

    fn page(&self, query: &crate::audit::AuditQuery) -> Result<crate::audit::AuditPage, Problem> {
        crate::audit::Unheard.page(query)
    }
}

#[test]
fn a_revoked_key_opens_nothing_and_is_known_by_its_id() {
    let heard = Arc::new(Heard::default());
    let clock = Arc::new(RealClock::default());
    let keys = vec![record("r", &[Role::Read]), record("old", &[Role::Admin])];
    let door = Authorizer::new(keys.clone(), false, 10, clock, heard.clone()).unwrap();
    let ask = |key| door.authorize(&mut call("/metrics", Some(("x-api-key", key))));
    assert!(ask("old").is_ok());
    door.replace(keys[..1].to_vec()).unwrap();
    door.replace_revoked(keys[1..].to_vec());
    let problem = ask("old").err().unwrap();
    assert_eq!(
        (problem.code, problem.title.as_str()),
        ("unauthenticated", "the key was revoked")
    );
    assert_eq!(ask("other").err().unwrap().title, "this call needs a key");
    let refused = heard.0.lock().unwrap()[1..].to_vec();
    let pair = |actor: &str, result: &str| (actor.to_owned(), result.to_owned());
    let want = [
        pair("old", "the key was revoked"),
        pair("anyone", "the key isn't known"),
    ];
    assert_eq!(refused, want);
}

fn authorizer(per_key_max: usize) -> Authorizer {
    let keys = vec![record("r", &[Role::Read]), record("a", &[Role::Admin])];
    door(keys, per_key_max, Arc::new(RealClock::default()))
}

fn call(path: &str, header: Option<(&'static str, &str)>) -> Request<()> {
    let mut request = Request::builder().uri(path);
    if let Some((name, value)) = header {
        request = request.header(name, value);
    }
    request.body(()).unwrap()
}

#[test]
fn a_key_comes_in_either_header_and_nothing_else_opens_the_door() {
    let door = authorizer(10);
    let code = |header| match door.authorize(&mut call("/metrics", header)) {
        Ok(caller) => caller.id().to_owned(),
        Err(problem) => problem.code.to_owned(),
    };
    assert_eq!(code(Some(("authorization", "Bearer r"))), "r");
    assert_eq!(code(Some(("authorization", "bearer  r "))), "r");
    assert_eq!(code(Some(("x-api-key", "a"))), "a");
    for header in [
        None,
        Some(("authorization", "r")),
        Some(("authorization", "Basic r")),
        Some(("authorization", "Bearer ")),
        Some(("authorization", "Bearer R")),
        Some(("x-api-key", &hash_key("r"))),
    ] {
        assert_eq!(code(header), "unauthenticated", "{header:?}");
    }
    assert!(door.authorize(&mut call("/health/live", None)).is_ok());
}

#[test]
fn one_key_cannot_take_every_place() {
    let door = authorizer(2);
    let enter = || door.authorize(&mut call("/metrics", Some(("x-api-key", "r"))));
    let (first, _second) = (enter().unwrap(), enter().unwrap());
    assert_eq!(enter().err().unwrap().code, "too-many-requests");
    drop(first);
    assert!(enter().is_ok());
}

#[test]
fn the_door_never_opens_again_once_keys_were_in_force() {
    let door = door(Vec::new(), 10, Arc::new(RealClock::default()));
    assert!(door.authorize(&mut call("/metrics", None)).is_ok());
    door.replace(vec![record("r", &[Role::Read])]).unwrap();
    assert!(door.authorize(&mut call("/metrics", None)).is_err());
    door.replace(Vec::new()).unwrap();
    assert!(door.authorize(&mut call("/metrics", None)).is_err());
    assert!(
        door.authorize(&mut call("/metrics", Some(("x-api-key", "r"))))
            .is_err()
    );
}

#[test]
fn records_that_are_no_keys_are_refused() {
    let bad = |id: &str, roles: &[Role], sha256: &str| KeyRecord {
        sha256: sha256.into(),
        ..record(id, roles)
    };
    let hash = hash_key("k");
    for record in [
        bad("", &[Role::Read], &hash),
        bad("a b", &[Role::Read], &hash),
        bad("a", &[], &hash),
        bad("a", &[Role::Read], &hash[1..]),
        bad("a", &[Role::Read], &hash.replace(&hash[..1], "x")),
        bad("a", &[Role::Read], &format!("é{}", &hash[2..])),
    ] {
        assert!(Key::new(record.clone()).is_err(), "{record:?}");
    }
}
