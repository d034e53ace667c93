//! `keys create`, `keys list`, `keys revoke`.

use clap::{Args, Subcommand, ValueEnum};
use headwater::KeyFile;
use headwater::keys::is_past;
use headwater_api::{AuditEvent, Role};
use headwater_schema::time::{Duration, parse_timestamp};
use headwater_schema::{Micros, Problem};
use serde_json::json;

use super::{Context, Failure, print};

#[derive(Subcommand)]
pub enum KeysVerb {
    /// Make a key and print it: it is shown this once.
    Create(CreateArguments),
    /// List keys, never their text.
    List,
    /// Take a key out of force.
    Revoke {
        /// The key's id, as `list` shows it.
        id: String,
    },
}

#[derive(Args)]
pub struct CreateArguments {
    /// What it may be used for; several times for several roles.
    #[arg(long, required = true, value_enum)]
    role: Vec<RoleName>,
    /// What it is for.
    #[arg(long, default_value = "")]
    name: String,
    /// When it goes out of force: a time (RFC 3339), or how long from now, as in `90d`.
    #[arg(long)]
    expires: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum RoleName {
    /// Features, facts, the registry, metrics.
    Read,
    /// Send and retract facts.
    Write,
    /// Everything.
    Admin,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Read => Self::Read,
            RoleName::Write => Self::Write,
            RoleName::Admin => Self::Admin,
        }
    }
}

/// Makes, lists or revokes keys.
pub fn run(context: &Context, verb: KeysVerb) -> Result<(), Failure> {
    if context.server.is_some() {
        return Err(Problem::user("local-only", "keys are made beside the data")
            .hint("run it on the server's machine, without `--server`; a running server hears of it within seconds")
            .into());
    }
    let config = context.config()?;
    let data = context.data_folder(&config);
    let file = KeyFile::new(context.env.clone(), &config, &context.folder, &data);
    let audit = context.audit(&config);
    let note = |action: &str, id: &str, result: &str| {
        audit.append(&AuditEvent::new(super::ACTOR, action, id, result))
    };
    match verb {
        KeysVerb::List => return list(context, &file),
        KeysVerb::Revoke { id } => {
            file.revoke(&id)?;
            note("key.revoke", &id, "ok")?;
            eprintln!("revoked: a running server refuses it within seconds");
        }
        KeysVerb::Create(arguments) => {
            let roles: Vec<Role> = arguments.role.into_iter().map(Role::from).collect();
            let expires = arguments.expires.as_deref();
            let expires = expires.map(|text| expiry(text, context.env.clock.now()));
            let (stored, key) = file.create(&arguments.name, &roles, expires.transpose()?)?;
            note("key.create", &stored.id, &names(&stored.roles))?;
            if context.json {
                print::json(
                    &json!({"id": stored.id, "roles": stored.roles, "expires": stored.expires, "key": key}),
                );
            } else {
                eprintln!("this key is shown once: keep it where secrets are kept");
                println!("{key}");
            }
        }
    }
    Ok(())
}

fn list(context: &Context, file: &KeyFile) -> Result<(), Failure> {
    let keys = file.list()?;
    if context.json {
        let keys = keys.iter().map(|k| {
            json!({"id": k.id, "name": k.name, "roles": k.roles, "created": k.created, "revoked": k.revoked,
                "expires": k.expires})
        });
        print::json(&json!(keys.collect::<Vec<_>>()));
        return Ok(());
    }
    let now = context.env.clock.now();
    let row = |k: &headwater::keys::StoredKey| {
        let revoked = k.revoked.as_ref().map(|at| format!("revoked {at}"));
        let expires = k.expires.as_ref().map(|at| match is_past(at, now) {
            true => format!("expired {at}"),
            false => format!("in force until {at}"),
        });
        let state = revoked.or(expires);
        vec![
            k.id.clone(),
            names(&k.roles),
            k.created.clone(),
            state.unwrap_or_else(|| "in force".into()),
            k.name.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = keys.iter().map(row).collect();
    print::table(&["id", "roles", "created", "state", "name"], &rows);
    Ok(())
}

/// A time, or a duration from now.
fn expiry(text: &str, now: Micros) -> Result<Micros, Problem> {
    let after = |d: Duration| now.saturating_add(d.0);
    let read = text.parse().map(after);
    read.or_else(|_| parse_timestamp(text, None))
        .map_err(|reason| {
            Problem::user(
                "bad-usage",
                format!("`{text}` is neither a time nor a duration"),
            )
            .field("--expires")
            .detail(reason)
            .hint("write `2027-01-31T00:00:00Z`, or `90d` for ninety days from now")
        })
}

fn names(roles: &[Role]) -> String {
    let names: Vec<&str> = roles.iter().map(|r| r.as_str()).collect();
    names.join(",")
}
