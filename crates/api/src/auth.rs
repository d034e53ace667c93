//! Who calls, and whether they may: API keys and the roles they hold.
//!
//! [`Authorizer::authorize`] is the one door. It takes any `http::Request`, so HTTP asks it in its
//! middleware and gRPC in a layer of its own (gRPC's requests are HTTP requests too): on `Err` the
//! code of the problem is `unauthenticated` (HTTP 401, gRPC 16), `forbidden` (403, gRPC 7),
//! `too-many-requests` (429, gRPC 8), `not-found` (404, gRPC 5) or `method-not-allowed` (405, gRPC
//! 12). On `Ok` it gives the [`Caller`] and leaves it in the request's extensions; it counts as one
//! of its key's requests until it is dropped. The roles that calls ask for stand in `access.rs`.
//!
//! Keys are known by the SHA-256 of their text: they are long and random, so that no slow hash is
//! needed. Nothing here ever sees a key but to hash it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use axum::http::{HeaderMap, Request, header};
use headwater_env::{Clock, RealClock};
use headwater_schema::time::{format_timestamp, parse_timestamp};
use headwater_schema::{Micros, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::access::{Access, Found, Role, find};
use crate::audit::{Audit, AuditEvent, Refusals};
use crate::backend::Measure;

/// Keys in force at once: each is compared with each request's.
pub const KEYS_MAX: usize = 1000;

/// A key as it is kept: by its hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyRecord {
    /// How logs and metrics call it.
    pub id: String,
    pub roles: Vec<Role>,
    /// The SHA-256 of the key's text, in 64 hexadecimal digits.
    pub sha256: String,
    /// When it goes out of force, in RFC 3339 with an offset; without it never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

impl KeyRecord {
    /// The instant from which it is refused.
    pub fn expires_at(&self) -> Result<Option<Micros>, Problem> {
        let read = |text: &String| {
            parse_timestamp(text, None).map_err(|reason| {
                Problem::user("invalid-key", format!("the key `{}` is no key", self.id))
                    .field("expires")
                    .detail(reason)
                    .hint("write a time as in `2027-01-31T00:00:00Z`")
            })
        };
        self.expires.as_ref().map(read).transpose()
    }
}

/// A key's hash, as a [`KeyRecord`] has it.
pub fn hash_key(key: &str) -> String {
    digest(key)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

/// The keys in force, ready to be compared.
#[derive(Default)]
struct Ring {
    keys: Vec<Arc<Key>>,
}

struct Key {
    record: KeyRecord,
    digest: [u8; 32],
    expires: Option<Micros>,
    requests: AtomicU64,
    in_flight: AtomicUsize,
}

impl Key {
    fn new(record: KeyRecord) -> Result<Self, Problem> {
        let wrong = |what: String| {
            Problem::user("invalid-key", format!("the key `{}` is no key", record.id))
                .detail(what)
                .hint("make keys with `headwater keys create`")
        };
        let name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if record.id.is_empty() || record.id.len() > 64 || !record.id.chars().all(name) {
            return Err(wrong(
                "its id has 1 to 64 letters, digits, `-` and `_`".into(),
            ));
        }
        if record.roles.is_empty() {
            return Err(wrong("it has no role".into()));
        }
        let mut digest = [0; 32];
        let bytes = record.sha256.as_bytes();
        if bytes.len() != 64 {
            return Err(wrong("`sha256` has 64 hexadecimal digits".into()));
        }
        for (byte, pair) in digest.iter_mut().zip(bytes.chunks_exact(2)) {
            let text = std::str::from_utf8(pair).unwrap_or_default();
            *byte = u8::from_str_radix(text, 16)
                .map_err(|_| wrong("`sha256` has 64 hexadecimal digits".into()))?;
        }
        Ok(Self {
            expires: record.expires_at()?,
            record,
            digest,
            requests: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
        })
    }

    fn holds(&self, role: Role) -> bool {
        let roles = &self.record.roles;
        roles.contains(&role) || roles.contains(&Role::Admin)
    }
}

/// Who a request is from. As long as it lives, the request counts as one of its key's.
#[derive(Clone)]
pub struct Caller(Option<Arc<InFlight>>);

struct InFlight(Arc<Key>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Caller {
    /// The id of the key, or `anyone` where none is asked for.
    pub fn id(&self) -> &str {
        self.0.as_ref().map_or("anyone", |c| &c.0.record.id)
    }
}

/// Decides who may call what.
pub struct Authorizer {
    ring: RwLock<Arc<Ring>>,
    /// Keys that are in force no longer, to tell whose they were.
    revoked: RwLock<Arc<Vec<Key>>>,
    /// Whether keys have ever been in force: once they have, nothing opens the door again.
    required: std::sync::atomic::AtomicBool,
    per_key_max: usize,
    clock: Arc<dyn Clock>,
    audit: Arc<dyn Audit>,
    refusals: Refusals,
    unauthenticated: AtomicU64,
    forbidden: AtomicU64,
}

impl Authorizer {
    /// With `required`, or once there is any key, nobody gets in without one. `per_key_max` requests of
    /// one key are worked on at once.
    pub fn new(
        keys: Vec<KeyRecord>,
        required: bool,
        per_key_max: usize,
        clock: Arc<dyn Clock>,
        audit: Arc<dyn Audit>,
    ) -> Result<Self, Problem> {
        let authorizer = Self {
            ring: RwLock::default(),
            revoked: RwLock::default(),
            required: required.into(),
            per_key_max,
            clock,
            audit,
            refusals: Refusals::default(),
            unauthenticated: AtomicU64::new(0),
            forbidden: AtomicU64::new(0),
        };
        authorizer.replace(keys)?;
        Ok(authorizer)
    }

    /// Lets everybody do everything, as on a loopback address without keys.
    pub fn open() -> Self {
        Self {
            ring: RwLock::default(),
            revoked: RwLock::default(),
            required: false.into(),
            per_key_max: usize::MAX,
            clock: Arc::new(RealClock::default()),
            audit: Arc::new(crate::audit::Unheard),
            refusals: Refusals::default(),
            unauthenticated: AtomicU64::new(0),
            forbidden: AtomicU64::new(0),
        }
    }

    /// Puts other keys in force. What a key that stays has counted, stays.
    pub fn replace(&self, keys: Vec<KeyRecord>) -> Result<(), Problem> {
        if keys.len() > KEYS_MAX {
            return Err(Problem::user("too-many-keys", "there are too many keys")
                .detail(format!("{} of at most {KEYS_MAX}", keys.len()))
                .hint("revoke those that nobody uses"));
        }
        let old = self.ring();
        let mut ring = Ring::default();
        for record in keys {
            if ring.keys.iter().any(|k| k.record.id == record.id) {
                return Err(Problem::user(
                    "duplicate-key-id",
                    format!("two keys have the id `{}`", record.id),
                )
                .hint("give one of them another id"));
            }
            ring.keys
                .push(match old.keys.iter().find(|k| k.record == record) {
                    Some(kept) => kept.clone(),
                    None => Arc::new(Key::new(record)?),
                });
        }
        if !ring.keys.is_empty() {
            self.required.store(true, Ordering::Release);
        }
        *self.ring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ring);
        Ok(())
    }

    /// Says which keys were revoked: they are refused as others are, by their ids. At most as many are kept
    /// in mind as may be in force, the last of them.
    pub fn replace_revoked(&self, keys: Vec<KeyRecord>) {
        let spare = keys.len().saturating_sub(KEYS_MAX);
        let keys = keys.into_iter().skip(spare);
        let keys = keys.filter_map(|record| Key::new(record).ok()).collect();
        *self.revoked.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
    }

    /// Says that keys are asked for even where none is in force.
    pub fn require(&self) {
        self.required.store(true, Ordering::Release);
    }

    /// Whether a key is asked for.
    pub fn is_required(&self) -> bool {
        self.required.load(Ordering::Acquire)
    }

    fn ring(&self) -> Arc<Ring> {
        self.ring
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether the request's caller may do what it asks; who it is stays in its extensions.
    pub fn authorize<B>(&self, request: &mut Request<B>) -> Result<Caller, Problem> {
        let caller = self.decide(request)?;
        request.extensions_mut().insert(caller.clone());
        Ok(caller)
    }

    fn decide<B>(&self, request: &Request<B>) -> Result<Caller, Problem> {
        if !self.is_required() {
            return Ok(Caller(None));
        }
        let (path, found) = (request.uri().path(), find(request));
        if found.access() == Some(Access::Open) {
            return Ok(Caller(None));
        }
        let Some(text) = credential(request.headers()) else {
            return Err(self.unauthenticated("no key came with the request", path));
        };
        let key = self.known(text).ok_or_else(|| self.unknown(text, path))?;
        if key.expires.is_some_and(|at| at <= self.clock.now()) {
            return Err(self.expired(&key, path));
        }
        match found.access() {
            Some(Access::Role(role)) if !key.holds(role) => Err(self.forbidden(&key, role, path)),
            Some(_) => self.enter(key),
            None if found == Found::OtherMethod => Err(method_not_allowed(request.method())),
            None => Err(not_found(path)),
        }
    }

    fn enter(&self, key: Arc<Key>) -> Result<Caller, Problem> {
        let in_flight = key.in_flight.fetch_add(1, Ordering::Relaxed);
        let entered = InFlight(key);
        if in_flight >= self.per_key_max {
            return Err(Problem::external(
                "too-many-requests",
                "too many requests of one key at once",
            )
            .detail(format!("more than {}", self.per_key_max))
            .hint("try again a little later; the limit is `limits.requests_per_key_max`")
            .retryable());
        }
        let id = &entered.0.record.id;
        if entered.0.requests.fetch_add(1, Ordering::Relaxed) == 0 {
            self.audit.record(&AuditEvent::new(id, "key.use", id, "ok"));
        }
        Ok(Caller(Some(Arc::new(entered))))
    }

    /// Every key is compared, each in constant time, so that the time tells nothing.
    fn known(&self, text: &str) -> Option<Arc<Key>> {
        let digest = digest(text);
        let ring = self.ring();
        let mut found = None;
        for key in &ring.keys {
            if bool::from(key.digest.ct_eq(&digest)) {
                found = Some(key.clone());
            }
        }
        found
    }

    /// What is said of a key that isn't in force.
    fn unknown(&self, text: &str, path: &str) -> Problem {
        let digest = digest(text);
        let revoked = self.revoked.read();
        let revoked = revoked.unwrap_or_else(PoisonError::into_inner).clone();
        let mut found = None;
        for key in revoked.iter() {
            if bool::from(key.digest.ct_eq(&digest)) {
                found = Some(&key.record.id);
            }
        }
        let Some(id) = found else {
            return self.unauthenticated("the key isn't known", path);
        };
        self.unauthenticated.fetch_add(1, Ordering::Relaxed);
        self.refuse(id, path, "the key was revoked");
        Problem::user("unauthenticated", "the key was revoked")
            .detail(format!("`{id}` is out of force"))
            .hint("ask an administrator for another key: `headwater keys create`")
    }

    fn unauthenticated(&self, what: &str, path: &str) -> Problem {
        self.unauthenticated.fetch_add(1, Ordering::Relaxed);
        self.refuse("anyone", path, what);
        Problem::user("unauthenticated", "this call needs a key")
            .detail(what)
            .hint("send `Authorization: Bearer KEY`; an administrator makes keys with `headwater keys create`")
    }

    fn expired(&self, key: &Key, path: &str) -> Problem {
        self.unauthenticated.fetch_add(1, Ordering::Relaxed);
        let (id, at) = (&key.record.id, key.expires.map(format_timestamp));
        let what = format!("the key expired at {}", at.unwrap_or_default());
        self.refuse(id, path, &what);
        Problem::user("unauthenticated", "the key has expired")
            .detail(format!("`{id}`: {what}"))
            .hint("ask an administrator for another key: `headwater keys create`")
    }

    fn forbidden(&self, key: &Key, role: Role, path: &str) -> Problem {
        self.forbidden.fetch_add(1, Ordering::Relaxed);
        self.refuse(
            &key.record.id,
            path,
            &format!("needs the role {}", role.as_str()),
        );
        let held: Vec<&str> = key.record.roles.iter().map(|r| r.as_str()).collect();
        Problem::user("forbidden", "the key may not do this")
            .detail(format!(
                "the key `{}` has the role {}; this call needs {}",
                key.record.id,
                held.join(", "),
                role.as_str()
            ))
            .hint(format!("use a key with the role {}", role.as_str()))
    }

    fn refuse(&self, actor: &str, path: &str, why: &str) {
        if self.refusals.may_tell() {
            self.audit
                .record(&AuditEvent::new(actor, "key.refused", path, why));
        }
    }

    /// Where events are kept.
    pub fn audit(&self) -> &Arc<dyn Audit> {
        &self.audit
    }

    /// What there is to measure: requests refused, and let in by each key.
    pub(crate) fn measures(&self) -> Vec<Measure> {
        let measure = |name, help, label, of: &str, count: &AtomicU64| {
            Measure::counter(name, help, count.load(Ordering::Relaxed)).of(label, of)
        };
        let refused = |reason, count| {
            let help = "Requests refused for want of a key or of a role.";
            measure("auth_refused", help, "reason", reason, count)
        };
        let mut measures = vec![
            refused("unauthenticated", &self.unauthenticated),
            refused("forbidden", &self.forbidden),
        ];
        let help = "Requests let in, by the id of their key.";
        let used =
            |key: &Arc<Key>| measure("auth_requests", help, "key", &key.record.id, &key.requests);
        measures.extend(self.ring().keys.iter().map(used));
        measures
    }
}

/// The key that came with a request: `Authorization: Bearer KEY`, or `X-API-Key: KEY`.
fn credential(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    bearer.or_else(|| headers.get("x-api-key")?.to_str().ok().map(str::trim))
}

pub(crate) fn not_found(path: &str) -> Problem {
    Problem::user("not-found", format!("there is nothing at {path}"))
        .hint("/openapi.json lists every call")
}

pub(crate) fn method_not_allowed(method: &axum::http::Method) -> Problem {
    Problem::user(
        "method-not-allowed",
        format!("{method} isn't answered here"),
    )
    .hint("/openapi.json lists every call")
}

#[cfg(test)]
mod tests;
