//! The verbs of the command line. Printing happens here and nowhere else.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is what talks to a person"
)]

mod apply;
mod archive;
mod audit;
mod backfill;
mod bundle;
mod check;
mod demo;
mod dev;
mod doctor;
mod facts;
mod features;
mod forecast;
mod import;
mod ingest;
mod init;
mod keys;
mod models;
mod print;
mod progress;
mod quarantine;
mod query;
mod registry;
mod remote;
mod replay;
mod schema;
mod score;
mod serve;
mod telemetry;
mod test;
mod training_set;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use headwater::{AuditLog, Config, Env, Project};
use headwater_schema::Problem;

use remote::Remote;
use telemetry::Telemetry;

/// Facts in, exact fresh features out.
#[derive(Parser)]
#[command(name = "headwater", version, about)]
pub struct Arguments {
    /// The project's folder.
    #[arg(long, global = true, default_value = ".")]
    project: PathBuf,
    /// The data folder, instead of the project's own.
    #[arg(long, global = true)]
    data: Option<PathBuf>,
    /// Ask a running server instead of the data folder, as in http://127.0.0.1:8080.
    #[arg(long, global = true)]
    server: Option<String>,
    /// The API key for that server; better in the environment than in the shell's history.
    #[arg(long, global = true, env = "HEADWATER_API_KEY", hide_env_values = true)]
    key: Option<String>,
    /// Certificates in PEM that a server's own may be signed with, instead of the public ones.
    #[arg(long, global = true, env = "HEADWATER_CA")]
    ca: Option<PathBuf>,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make a new project, from samples where some are given.
    Init(init::InitArguments),
    /// Check every definition.
    Check,
    /// Show what `apply` would change.
    Plan,
    /// Put the project's definitions in force.
    Apply(apply::ApplyArguments),
    /// Show how far views are that are being filled, and wait; make views again from the facts.
    Backfill(backfill::BackfillArguments),
    /// Run the project's own tests: facts in, expected features out.
    Test(test::TestArguments),
    /// Serve the project over HTTP.
    Serve(serve::ServeArguments),
    /// Serve the project, and apply it again whenever a file of it changes.
    Dev(serve::ServeArguments),
    /// Send facts from files.
    Ingest(ingest::IngestArguments),
    /// Take in the history of a data lake: Parquet and other files, as often as one likes.
    Import(import::ImportArguments),
    /// Look at facts.
    #[command(subcommand)]
    Facts(facts::FactsVerb),
    /// Read features.
    #[command(subcommand)]
    Features(features::FeaturesVerb),
    /// Make a training set: a spine's rows, each with its features as of its own time.
    TrainingSet(training_set::TrainingSetArguments),
    /// Score the rows of a file by a model.
    Score(score::ScoreArguments),
    /// Ask in SQL, read-only, for what is stored: facts, their quarantine, features.
    Query(query::QueryArguments),
    /// Add, list, promote and roll back versions of models.
    #[command(subcommand)]
    Models(models::ModelsVerb),
    /// Take a model along in one file, with what is known of some entities, for a process or a device without a server.
    Bundle(bundle::BundleArguments),
    /// Look at what is applied: its history, its lineage.
    #[command(subcommand)]
    Registry(registry::RegistryVerb),
    /// Take facts to the archive now, and tell what it holds.
    Archive(archive::ArchiveArguments),
    /// Look for what may be wrong with the project, its data and the machine.
    Doctor,
    /// Make, list and revoke API keys.
    #[command(subcommand)]
    Keys(keys::KeysVerb),
    /// Show who did what: definitions applied, keys made, used and refused.
    Audit(audit::AuditArguments),
    /// Write the JSON Schemas of every kind of file, the OpenAPI document and the protobufs.
    Schema(schema::SchemaArguments),
    /// Run an example.
    #[command(subcommand)]
    Demo(demo::DemoVerb),
}

/// What ends a command early.
pub enum Failure {
    Problems(Vec<Problem>),
    /// Everything has been said already.
    Told,
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Problems(vec![problem])
    }
}

impl From<Vec<Problem>> for Failure {
    fn from(problems: Vec<Problem>) -> Self {
        Self::Problems(problems)
    }
}

/// What every verb is given.
pub struct Context {
    pub env: Env,
    pub folder: PathBuf,
    pub data: Option<PathBuf>,
    pub server: Option<String>,
    pub key: Option<String>,
    pub ca: Option<PathBuf>,
    pub json: bool,
}

/// How the audit log calls whoever runs the program.
pub const ACTOR: &str = "command line";

impl Context {
    pub fn project(&self) -> Result<Project, Failure> {
        Ok(Project::load(&self.env, &self.folder)?)
    }

    pub fn config(&self) -> Result<Config, Failure> {
        Ok(Project::config(&self.env, &self.folder)?)
    }

    /// The data folder: the one that was named, or the project's.
    pub fn data_folder(&self, config: &Config) -> PathBuf {
        let own = || self.folder.join(&config.spec.data_dir);
        self.data.clone().unwrap_or_else(own)
    }

    /// The server to ask, where one was named.
    pub fn remote(&self) -> Result<Option<Remote>, Problem> {
        let server = self.server.as_deref();
        server.map(|server| self.remote_at(server)).transpose()
    }

    /// The server at an address, with the key and the certificates that were named.
    pub fn remote_at(&self, server: &str) -> Result<Remote, Problem> {
        let read = |path: &PathBuf| {
            self.env.files.read(path).map_err(|e| {
                Problem::user(
                    "invalid-certificate",
                    "the certificates of `--ca` can't be read",
                )
                .detail(e)
            })
        };
        let ca = self.ca.as_ref().map(read).transpose()?;
        Remote::new(server, self.key.as_deref(), ca.as_deref())
    }

    /// The record of who did what in the data folder.
    pub fn audit(&self, config: &Config) -> AuditLog {
        let folder = self.data_folder(config);
        AuditLog::new(self.env.clone(), &folder, config.spec.audit.clone())
    }

    /// The engine over the data folder, with every view filled.
    pub fn engine(&self) -> Result<headwater::Engine, Failure> {
        let config = self.config()?;
        let folder = self.data_folder(&config);
        let engine = headwater::Engine::open(self.env.clone(), &config, &folder, |_, _| {})?;
        print::repairs(engine.report());
        engine.wait_until_filled(|_| ())?;
        Ok(engine)
    }
}

/// Runs the command line; 0 done, 1 failed, 2 bad usage.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    end_with_the_reader();
    let context = Context {
        env: Env::real(),
        folder: arguments.project,
        data: arguments.data,
        server: arguments.server,
        key: arguments.key,
        ca: arguments.ca,
        json: arguments.json,
    };
    let telemetry = match start_telemetry(&context, &arguments.verb) {
        Ok(telemetry) => telemetry,
        Err(problem) => {
            print::problems(&context, &[problem]);
            return ExitCode::FAILURE;
        }
    };
    let done = match arguments.verb {
        Verb::Init(arguments) => init::run(&context, &arguments),
        Verb::Check => check::check(&context),
        Verb::Plan => apply::plan(&context),
        Verb::Apply(arguments) => apply::apply(&context, &arguments),
        Verb::Backfill(arguments) => backfill::run(&context, &arguments),
        Verb::Test(arguments) => test::run(&context, &arguments),
        Verb::Serve(arguments) => serve::run(&context, &arguments),
        Verb::Dev(arguments) => dev::run(&context, &arguments),
        Verb::Ingest(arguments) => ingest::run(&context, &arguments),
        Verb::Import(arguments) => import::run(&context, &arguments),
        Verb::Facts(verb) => facts::run(&context, verb),
        Verb::Features(verb) => features::run(&context, verb),
        Verb::TrainingSet(arguments) => training_set::run(&context, &arguments),
        Verb::Score(arguments) => score::run(&context, &arguments),
        Verb::Query(arguments) => query::run(&context, &arguments),
        Verb::Models(verb) => models::run(&context, verb),
        Verb::Bundle(arguments) => bundle::run(&context, &arguments),
        Verb::Registry(verb) => registry::run(&context, verb),
        Verb::Archive(arguments) => archive::run(&context, &arguments),
        Verb::Doctor => doctor::run(&context),
        Verb::Keys(verb) => keys::run(&context, verb),
        Verb::Audit(arguments) => audit::run(&context, &arguments),
        Verb::Schema(arguments) => schema::run(&context, &arguments),
        Verb::Demo(demo::DemoVerb::Flights(arguments)) => demo::run(&context, &arguments),
    };
    telemetry.finish();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Told) => ExitCode::FAILURE,
        Err(Failure::Problems(problems)) => {
            print::problems(&context, &problems);
            ExitCode::FAILURE
        }
    }
}

/// 128 and the number of SIGPIPE, as shells tell it.
const BY_SIGPIPE: i32 = 141;

/// Ends quietly once nobody reads standard output any more (`headwater facts … | head`), as the signal would that
/// Rust programs don't get.
fn end_with_the_reader() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let said = panic.payload().downcast_ref::<String>();
        let closed = said.is_some_and(|t| {
            t.starts_with("failed printing to stdout") && t.contains("os error 32")
        });
        if closed {
            std::process::exit(BY_SIGPIPE);
        }
        tell(panic);
    }));
}

/// Logs go to standard error; `RUST_LOG` says how much. A server logs and traces as its project says;
/// what is wrong with the project is told by the verb itself.
fn start_telemetry(context: &Context, verb: &Verb) -> Result<Telemetry, Problem> {
    let config = match verb {
        Verb::Serve(_) => Project::config(&context.env, &context.folder).ok(),
        _ => None,
    };
    Telemetry::start(&config.map(|c| c.spec.telemetry).unwrap_or_default())
}
