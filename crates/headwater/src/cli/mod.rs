//! The verbs of the command line. Printing happens here and nowhere else.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is what talks to a person"
)]

mod check;
mod demo;
mod doctor;
mod facts;
mod features;
mod ingest;
mod init;
mod print;
mod remote;
mod replay;
mod schema;
mod serve;
mod test;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use headwater::{Config, Env, Project};
use headwater_schema::Problem;

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
    Apply,
    /// Run the project's own tests: facts in, expected features out.
    Test(test::TestArguments),
    /// Serve the project over HTTP.
    Serve(serve::ServeArguments),
    /// Send facts from files.
    Ingest(ingest::IngestArguments),
    /// Look at facts.
    #[command(subcommand)]
    Facts(facts::FactsVerb),
    /// Read features.
    #[command(subcommand)]
    Features(features::FeaturesVerb),
    /// Look for what may be wrong with the project, its data and the machine.
    Doctor,
    /// Write the JSON Schemas of every kind of file, and the OpenAPI document.
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
    pub json: bool,
}

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

    /// The engine over the data folder.
    pub fn engine(&self) -> Result<headwater::Engine, Failure> {
        let config = self.config()?;
        let folder = self.data_folder(&config);
        let engine = headwater::Engine::open(self.env.clone(), &config, &folder, |_, _| {})?;
        print::repairs(engine.report());
        Ok(engine)
    }
}

/// Runs the command line; 0 done, 1 failed, 2 bad usage.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    start_logging();
    let context = Context {
        env: Env::real(),
        folder: arguments.project,
        data: arguments.data,
        server: arguments.server,
        json: arguments.json,
    };
    let done = match arguments.verb {
        Verb::Init(arguments) => init::run(&context, &arguments),
        Verb::Check => check::check(&context),
        Verb::Plan => check::plan(&context),
        Verb::Apply => check::apply(&context),
        Verb::Test(arguments) => test::run(&context, &arguments),
        Verb::Serve(arguments) => serve::run(&context, &arguments),
        Verb::Ingest(arguments) => ingest::run(&context, &arguments),
        Verb::Facts(verb) => facts::run(&context, verb),
        Verb::Features(verb) => features::run(&context, verb),
        Verb::Doctor => doctor::run(&context),
        Verb::Schema(arguments) => schema::run(&context, &arguments),
        Verb::Demo(demo::DemoVerb::Flights(arguments)) => demo::run(&context, &arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Told) => ExitCode::FAILURE,
        Err(Failure::Problems(problems)) => {
            print::problems(&context, &problems);
            ExitCode::FAILURE
        }
    }
}

/// Logs go to standard error; `RUST_LOG` says how much.
fn start_logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}
