//! `keys create`, `keys list`, `keys revoke`.

use clap::{Args, Subcommand, ValueEnum};
use headwater::KeyFile;
use headwater_api::{AuditEvent, Role};
use headwater_schema::Problem;
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
            let (stored, key) = file.create(&arguments.name, &roles)?;
            note("key.create", &stored.id, &names(&stored.roles))?;
            if context.json {
                print::json(&json!({"id": stored.id, "roles": stored.roles, "key": key}));
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
            json!({"id": k.id, "name": k.name, "roles": k.roles, "created": k.created, "revoked": k.revoked})
        });
        print::json(&json!(keys.collect::<Vec<_>>()));
        return Ok(());
    }
    let row = |k: &headwater::keys::StoredKey| {
        let state = k.revoked.as_ref().map(|at| format!("revoked {at}"));
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

fn names(roles: &[Role]) -> String {
    let names: Vec<&str> = roles.iter().map(|r| r.as_str()).collect();
    names.join(",")
}
