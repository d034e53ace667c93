//! API keys: the file they are kept in, by their hashes, and the door they open.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use headwater_api::{Audit, Authorizer, KEYS_MAX, KeyRecord, Role, hash_key};
use headwater_env::{Env, FileError, FileErrorKind};
use headwater_schema::time::{format_timestamp, parse_timestamp};
use headwater_schema::{Micros, Problem};
use serde::{Deserialize, Serialize};

use crate::{Config, DataFolder};

/// The format of the file. Version 1 knew no keys that expire.
const VERSION: u32 = 2;
const VERSION_LEAST: u32 = 1;
/// Bytes of a key's secret part.
const SECRET_BYTES: usize = 32;
/// Bytes of a key's id.
const ID_BYTES: usize = 5;

/// A key in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredKey {
    pub id: String,
    /// What it is for, in its maker's words.
    pub name: String,
    pub roles: Vec<Role>,
    pub sha256: String,
    /// RFC 3339, UTC.
    pub created: String,
    pub revoked: Option<String>,
    /// RFC 3339, UTC; without it never.
    #[serde(default)]
    pub expires: Option<String>,
}

impl StoredKey {
    fn record(self) -> KeyRecord {
        KeyRecord {
            id: self.id,
            roles: self.roles,
            sha256: self.sha256,
            expires: self.expires,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    version: u32,
    keys: Vec<StoredKey>,
}

/// The file of keys.
#[derive(Clone)]
pub struct KeyFile {
    env: Env,
    path: PathBuf,
}

impl KeyFile {
    /// The file that a project names, else the one in its data folder.
    pub fn new(env: Env, config: &Config, project: &Path, data: &Path) -> Self {
        let path = match &config.spec.auth.keys_file {
            Some(named) => project.join(named),
            None => DataFolder::new(data).keys(),
        };
        Self { env, path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every key, revoked ones too; none where there is no file.
    pub fn list(&self) -> Result<Vec<StoredKey>, Problem> {
        let bytes = match self.env.files.read(&self.path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind == FileErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(self.failed("read")(e)),
        };
        let damaged = |detail: String| {
            Problem::external(
                "keys-file",
                format!("{} holds no keys", self.path.display()),
            )
            .detail(detail)
            .hint("bring it back from a backup, or remove it and make keys again")
        };
        let stored: Stored = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        if !(VERSION_LEAST..=VERSION).contains(&stored.version) {
            return Err(damaged(format!("its version is {}", stored.version)));
        }
        Ok(stored.keys)
    }

    /// Makes a key, in force until `expires`, and keeps its hash. The key itself is in the answer and nowhere else.
    pub fn create(
        &self,
        name: &str,
        roles: &[Role],
        expires: Option<Micros>,
    ) -> Result<(StoredKey, String), Problem> {
        let now = self.env.clock.now();
        if let Some(past) = expires.filter(|at| *at <= now) {
            return Err(
                Problem::user("invalid-key", "the key would have expired already")
                    .field("expires")
                    .detail(format_timestamp(past))
                    .hint("name a time to come, or a duration as in `90d`"),
            );
        }
        let mut random = [0; ID_BYTES + SECRET_BYTES];
        self.env.random.secret(&mut random).map_err(|e| {
            Problem::external("random", "the system gives no random bytes").detail(e)
        })?;
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let (id, secret) = random.split_at(ID_BYTES);
        let (id, secret) = (hex(id), hex(secret));
        let key = format!("hw_{id}_{secret}");
        let mut roles = roles.to_vec();
        roles.sort_unstable();
        roles.dedup();
        let stored = StoredKey {
            id,
            name: name.to_owned(),
            roles,
            sha256: hash_key(&key),
            created: format_timestamp(now),
            revoked: None,
            expires: expires.map(format_timestamp),
        };
        self.change(|keys| {
            if keys.len() >= KEYS_MAX {
                let over = |k: &StoredKey| k.expires.as_ref().is_some_and(|at| is_past(at, now));
                let spare = keys.iter().position(|k| k.revoked.is_some() || over(k));
                keys.remove(spare.ok_or_else(|| {
                    Problem::user("too-many-keys", "there are too many keys")
                        .detail(format!("{KEYS_MAX} are in force"))
                        .hint("revoke those that nobody uses")
                })?);
            }
            keys.push(stored.clone());
            Ok(())
        })?;
        Ok((stored, key))
    }

    /// Takes a key out of force; running servers hear of it within seconds.
    pub fn revoke(&self, id: &str) -> Result<(), Problem> {
        let now = format_timestamp(self.env.clock.now());
        self.change(|keys| {
            let key = keys.iter_mut().find(|k| k.id == id);
            let key = key.ok_or_else(|| {
                Problem::user("unknown-key", format!("there is no key `{id}`"))
                    .hint("`headwater keys list` shows their ids")
            })?;
            key.revoked.get_or_insert(now);
            Ok(())
        })
    }

    fn change(
        &self,
        change: impl FnOnce(&mut Vec<StoredKey>) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let files = &self.env.files;
        files
            .create_dir_all(folder)
            .map_err(self.failed("written"))?;
        let lock = files.lock(&self.path.with_extension("lock"));
        let _lock = lock.map_err(|e| self.failed("changed")(e).retryable())?;
        let mut keys = self.list()?;
        change(&mut keys)?;
        let stored = Stored {
            version: VERSION,
            keys,
        };
        let bytes = serde_json::to_vec_pretty(&stored)
            .map_err(|e| Problem::internal("keys-file", "keys can't be written").detail(e))?;
        files
            .write_atomic_private(&self.path, &bytes)
            .map_err(self.failed("written"))
    }

    fn failed(&self, what: &str) -> impl Fn(FileError) -> Problem {
        let title = format!("the keys in {} can't be {what}", self.path.display());
        move |e| Problem::external("keys-file", title.clone()).detail(e)
    }

    /// The keys in force, those of the settings and those of the file, and whether any was ever made.
    pub fn in_force(&self, config: &Config) -> Result<(Vec<KeyRecord>, bool), Problem> {
        let stored = self.list()?;
        let mut keys = config.spec.auth.keys.clone();
        let any = !stored.is_empty() || !keys.is_empty();
        let live = stored.into_iter().filter(|k| k.revoked.is_none());
        keys.extend(live.map(StoredKey::record));
        Ok((keys, any))
    }

    /// Keys of the file that were revoked: none of them opens anything, but it is known whose they were.
    fn revoked(&self) -> Result<Vec<KeyRecord>, Problem> {
        let stored = self.list()?.into_iter();
        let revoked = stored.filter(|k| k.revoked.is_some());
        Ok(revoked.map(StoredKey::record).collect())
    }

    /// Puts the keys of the file and the settings in force.
    pub fn reload(&self, config: &Config, auth: &Authorizer) -> Result<(), Problem> {
        let (keys, any) = self.in_force(config)?;
        if any {
            auth.require();
        }
        auth.replace(keys)?;
        auth.replace_revoked(self.revoked()?);
        Ok(())
    }
}

/// The door of a project's server, for HTTP and gRPC alike.
pub fn authorizer(
    file: &KeyFile,
    config: &Config,
    audit: Arc<dyn Audit>,
) -> Result<Arc<Authorizer>, Problem> {
    let (keys, any) = file.in_force(config)?;
    let per_key_max = config.spec.limits.requests_per_key_max.max(1);
    let clock = file.env.clock.clone();
    let authorizer = Authorizer::new(keys, any, per_key_max, clock, audit)?;
    authorizer.replace_revoked(file.revoked()?);
    Ok(Arc::new(authorizer))
}

/// Whether a time that was written down has come. One that can't be read hasn't.
pub fn is_past(text: &str, now: Micros) -> bool {
    parse_timestamp(text, None).is_ok_and(|at| at <= now)
}

/// Whether an address is reached from this machine alone.
pub fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Refuses to listen where others can reach, unless keys are asked for.
pub fn check_address(address: SocketAddr, auth: &Authorizer) -> Result<(), Problem> {
    if is_loopback(address.ip()) || auth.is_required() {
        return Ok(());
    }
    Err(Problem::user(
        "open-address",
        format!("{address} is open to others, and there are no keys"),
    )
    .detail("without keys everybody who reaches the address may read, write and change everything")
    .hint("make a key with `headwater keys create --role admin`, or listen on 127.0.0.1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_others_reach_needs_keys() {
        let open = Authorizer::open();
        for (address, good) in [
            ("127.0.0.1:80", true),
            ("127.9.9.9:80", true),
            ("[::1]:80", true),
            ("[::ffff:127.0.0.1]:80", true),
            ("0.0.0.0:80", false),
            ("[::]:80", false),
            ("192.168.1.5:80", false),
            ("[::ffff:10.0.0.1]:80", false),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(check_address(address, &open).is_ok(), good, "{address}");
        }
        open.require();
        assert!(check_address("0.0.0.0:80".parse().unwrap(), &open).is_ok());
    }

    #[test]
    fn a_key_is_kept_by_its_hash_until_it_is_revoked() {
        let (env, _, _) = Env::simulated(7);
        let config = Config::named("shop");
        let file = KeyFile::new(env.clone(), &config, Path::new("/p"), Path::new("/p/data"));
        assert_eq!(file.in_force(&config).unwrap(), (Vec::new(), false));
        let (stored, key) = file
            .create("robot", &[Role::Write, Role::Read, Role::Read], None)
            .unwrap();
        assert!(file.create("late", &[Role::Read], Some(0)).is_err());
        let soon = Some(86_400_000_000);
        let (person, other) = file.create("person", &[Role::Admin], soon).unwrap();
        assert_eq!(person.expires.as_deref(), Some("1970-01-02T00:00:00Z"));
        assert_ne!(key, other);
        let bytes = env.files.read(file.path()).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let secret = key.rsplit_once('_').unwrap().1;
        assert!(!text.contains(secret) && secret.len() == 64, "{text}");
        let (keys, any) = file.in_force(&config).unwrap();
        assert!(any && keys.len() == 2);
        assert_eq!(keys[0].sha256, hash_key(&key));
        assert_eq!(keys[0].roles, [Role::Read, Role::Write]);
        assert_eq!(keys[1].expires, person.expires);
        // A file of the first version is read on.
        let first = text.replace("\"version\": 2", "\"version\": 1");
        let first = first
            .replace("\n      \"expires\": null", "")
            .replace("\"revoked\": null,\n    }", "\"revoked\": null\n    }");
        assert!(first != text);
        env.files
            .write_atomic(file.path(), first.as_bytes())
            .unwrap();
        assert_eq!(file.in_force(&config).unwrap().0.len(), 2);
        file.revoke(&stored.id).unwrap();
        assert_eq!(file.revoke("nobody").unwrap_err().code, "unknown-key");
        assert_eq!(file.in_force(&config).unwrap().0.len(), 1);
        assert!(file.list().unwrap()[0].revoked.is_some());
    }
}
